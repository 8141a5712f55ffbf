"""What a reader is shown of a session: which views are written, and how partial text reaches a stream."""

from __future__ import annotations

import json

from shared.api.follow import TextCursor
from shared.domain import Contact, Message
from shared.sessions.document import Run, Session, Step
from shared.sessions.projection import PartialText, console_view, contact_view, views
from tests.clock import NOON

ASKED = Message(role="contact", text="Where?", id="m1", contact=Contact(id="ana"), sequence=1)
LOOKED = Step(key="tool-1.0", kind="tool", name="lookup", attempt=1, started_at=NOON, result='{"secret":1}', sequence=2)
RUN = Run(number=1, plan="p", inputs=(ASKED,), first_sequence=1, started_at=NOON, steps=(LOOKED,))
WEB = Session(tenant="acme", id="s" * 32, connection="web", conversation="ana/main", viewer="ana", run=RUN, sequence=2)
TELEGRAM = Session(tenant="acme", id="t" * 32, connection="bot", conversation="7", run=RUN, sequence=2)


def test_a_web_contacts_view_is_always_written_and_a_console_only_while_it_is_watched() -> None:
    mine = contact_view("acme", "ana", WEB.id)
    assert set(views(WEB, watched=False)) == {mine}
    assert set(views(WEB, watched=True)) == {mine, console_view(WEB.key)}
    assert views(TELEGRAM, watched=False) == {}
    assert set(views(TELEGRAM, watched=True)) == {console_view(TELEGRAM.key)}


def test_a_contacts_view_has_no_result_of_a_tool_and_a_console_has() -> None:
    shown = {path: json.loads(body) for path, body in views(WEB, watched=True).items()}
    (mine,) = shown[contact_view("acme", "ana", WEB.id)]["steps"]
    (console,) = shown[console_view(WEB.key)]["steps"]
    assert "result" not in mine
    assert console["result"] == '{"secret":1}'


def test_a_reader_gets_the_text_so_far_first_then_what_is_added_and_anew_in_a_new_attempt() -> None:
    def partial(text: str, attempt: int = 1) -> PartialText:
        return PartialText(step="model-2", attempt=attempt, text=text)

    reader = TextCursor()
    pieces = [reader.advance(1, partial(text)) for text in ("Order", "Order 1042", "Order 1042")]
    pieces.append(reader.advance(1, partial("Your", attempt=2)))
    assert [piece and (piece.reset, piece.offset, piece.text) for piece in pieces] == [
        (True, 0, "Order"),
        (False, 5, " 1042"),
        None,
        (True, 0, "Your"),
    ]
    reconnected = TextCursor().advance(1, partial("Order 1042"))
    assert reconnected is not None
    assert (reconnected.reset, reconnected.text) == (True, "Order 1042")
