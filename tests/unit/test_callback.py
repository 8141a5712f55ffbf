"""What ends a wait from outside: in time, early, late, twice, and with a body for another kind of wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.codec import decode, encode
from shared.domain import Entry, JsonObject, ToolCall
from shared.errors import BadRequest, Gone, TooLarge
from shared.sessions.callback import (
    RESULT_DEPTH,
    answer_by,
    answer_to,
    read_result,
    stop,
    takes_result,
    verdict_on,
)
from shared.sessions.document import SERVICE, Moved, Run, Session, Step, Wait
from shared.sessions.waits import outside_wait
from shared.tools import RESULT_BYTES
from tests.clock import NOON

LATER = NOON + timedelta(hours=1)
CALL = ToolCall(id="c", name="ship", arguments={})
CALLBACK, OPERATOR = "c12-tool-3-0", "c12-tool-3-1"
DONE: JsonObject = {"shipped": True}


def wait(id_: str, kind: Any, step: str = "tool-3.9") -> Wait:
    return Wait(id=id_, kind=kind, step=step, call=CALL, until=LATER)


WAITS = (
    wait("a" * 24, "approval"),
    wait("b" * 24, "approval"),
    wait(CALLBACK, "callback", "tool-3.0"),
    wait(OPERATOR, "operator", "tool-3.1"),
    wait("d" * 24, "timer"),
)


def session(*waits: Wait, **run: Any) -> Session:
    made = Run(number=12, plan="", inputs=(), first_sequence=1, started_at=NOON, open=waits, **run)
    return Session(tenant="demo", id="s" * 32, connection="bot", conversation="7", run=made)


def recorded(key: str) -> Step:
    return Step(key=key, kind="tool", name="ship", attempt=1, started_at=NOON, result="{}")


WAITING, AT_WORK = session(*WAITS, parked=True), session()


def test_a_result_ends_the_wait_that_it_names() -> None:
    assert answer_to(WAITING, CALLBACK, DONE, NOON) == Entry(
        id=answer_to(WAITING, CALLBACK, DONE, NOON).id,
        kind="answer",
        connection="bot",
        conversation="7",
        order=0,
        received_at=NOON,
        contact=SERVICE,
        token=CALLBACK,
        result=DONE,
    )


def test_each_of_several_approvals_is_decided_by_itself() -> None:
    first, second = (verdict_on(WAITING, id_ * 24, approved=True, now=NOON) for id_ in "ab")
    assert (first.token, second.token) == ("a" * 24, "b" * 24)
    assert first.id != second.id


def test_the_same_again_is_the_same_entry_and_another_result_or_run_is_not() -> None:
    once, twice = (answer_to(WAITING, CALLBACK, DONE, now) for now in (NOON, NOON + timedelta(seconds=5)))
    other = answer_to(WAITING, CALLBACK, {"shipped": False}, NOON)
    elsewhere = answer_to(replace(WAITING, id="e" * 32), CALLBACK, DONE, NOON)
    assert once.id == twice.id
    assert len({once.id, other.id, elsewhere.id}) == 3


def test_a_result_that_comes_before_its_wait_is_stored_is_taken() -> None:
    begun = session(steps=(recorded("tool-3.1"), replace(recorded("tool-3.0"), result=None)))
    for at_work in (AT_WORK, begun):
        assert answer_to(at_work, CALLBACK, DONE, NOON).token == CALLBACK


@pytest.mark.parametrize(
    "over",
    [
        replace(AT_WORK, run=None),
        session(parked=True),
        session(outcome="answered"),
        session(waits=(wait(CALLBACK, "callback"),)),
        session(steps=(recorded("tool-3.0"),)),
        session(moved=Moved(pages=1, turns=3)),
    ],
)
def test_a_result_that_comes_too_late_is_gone(over: Session) -> None:
    with pytest.raises(Gone):
        answer_to(over, CALLBACK, DONE, NOON)


@pytest.mark.parametrize("id_", ["c11-tool-3-0", "c13-tool-3-0", "c12-tool", "f" * 24])
def test_a_result_for_another_run_or_for_what_never_was_is_gone(id_: str) -> None:
    for now in (WAITING, AT_WORK):
        with pytest.raises(Gone):
            answer_to(now, id_, DONE, NOON)


def test_nothing_counts_once_the_deadline_has_passed() -> None:
    lates: list[Callable[[], object]] = [
        lambda: answer_to(WAITING, CALLBACK, DONE, LATER),
        lambda: answer_by(WAITING, OPERATOR, "Yes", LATER, "olga"),
        lambda: verdict_on(WAITING, "a" * 24, approved=True, now=LATER),
    ]
    for late in lates:
        with pytest.raises(Gone, match="2026-11-20T13:00"):
            late()


def test_no_answer_shortens_a_timer() -> None:
    with pytest.raises(Gone, match="waits for a time"):
        verdict_on(WAITING, "d" * 24, approved=True, now=NOON)


def test_what_is_sent_to_another_kind_of_wait_is_refused_with_what_it_takes() -> None:
    with pytest.raises(BadRequest, match=r'^approved: .*post \{"result": \{…\}\}'):
        verdict_on(WAITING, CALLBACK, approved=True, now=NOON)
    with pytest.raises(BadRequest, match=r'^approved: .*\{"answer": "…"\}'):
        verdict_on(WAITING, OPERATOR, approved=True, now=NOON)
    with pytest.raises(BadRequest, match=r'^answer: .*\{"approved": true\}'):
        answer_by(WAITING, "a" * 24, "Yes", NOON, "olga")
    with pytest.raises(BadRequest, match=r'^answer: .*post \{"result"'):
        answer_by(WAITING, CALLBACK, "Yes", NOON, "olga")
    with pytest.raises(BadRequest, match=r"^result: "):
        answer_to(WAITING, "a" * 24, DONE, NOON)


def test_an_operators_answer_says_whose_it_is() -> None:
    entry = answer_by(WAITING, OPERATOR, "Yes", NOON, "olga")
    assert (entry.result, entry.posted_by) == ({"answer": "Yes", "by": "olga"}, "olga")
    verdict = verdict_on(WAITING, "a" * 24, approved=True, now=NOON, by="olga")
    assert (verdict.contact, verdict.posted_by) == (SERVICE, "olga")


def test_an_operators_stop_stands_behind_whatever_was_written_before() -> None:
    entry = stop(WAITING, "request", NOON, "olga")
    assert (entry.kind, entry.posted_by, entry.contact.id) == ("stop", "olga", "olga")
    assert entry.order > 2**40, "of Telegram's update ids and WhatsApp's seconds"


def test_the_waits_of_tools_are_told_from_approvals_by_their_ids() -> None:
    assert takes_result(outside_wait(12, "tool-3.0"))
    assert not takes_result("c0ffee" * 4)


# What a result may be


def nested(depth: int) -> JsonObject:
    value: JsonObject = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "result",
    [{}, DONE, {"é": ["👍", None, 1.5, -(10**300)]}, nested(RESULT_DEPTH), {"a": "x" * (RESULT_BYTES - 8)}],
)
def test_whatever_is_taken_can_be_stored_and_read_again(result: JsonObject) -> None:
    assert read_result({"result": result}) == result
    entry = answer_to(WAITING, CALLBACK, result, NOON)
    assert decode(Entry, encode(entry)) == entry


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "result: missing"),
        ({"approved": True}, "result: missing"),
        ({"result": [1]}, "result: missing or not an object"),
        ({"result": None}, "result: missing or not an object"),
        ({"result": nested(RESULT_DEPTH + 1)}, "result: nested more than 50 deep"),
        ({"result": {"a": [[[nested(RESULT_DEPTH - 3)]]]}}, "result: nested"),
        ({"result": {"a": float("nan")}}, "result: has"),
        ({"result": {"a": float("inf")}}, "result: has"),
        ({"result": {"a": "\ud800"}}, "result: has half a character"),
        ({"result": {"\udfff": 1}}, "result: has half a character"),
    ],
)
def test_what_cannot_be_a_result_is_refused_by_name(body: JsonObject, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        read_result(body)


def test_a_result_that_is_too_large_is_refused_by_its_bytes() -> None:
    with pytest.raises(TooLarge, match="result: 30001 bytes"):
        read_result({"result": {"a": "x" * (RESULT_BYTES - 7)}})
    with pytest.raises(TooLarge):
        read_result({"result": {"a": "é" * (RESULT_BYTES // 2)}})
