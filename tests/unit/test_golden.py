"""Documents as older releases stored them are read and continued; see tests/golden/make.py."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.codec import decode, encode
from shared.domain import Entry, SessionKey
from shared.errors import Retryable
from shared.published import connection_path
from shared.sessions.accept import pending
from shared.sessions.document import SCHEMA_VERSION, Run, read, read_state, state_bytes
from shared.sessions.events import events
from shared.store import Archived, Stored
from shared.store.sqlite import SqliteStore
from tests.clock import NOON, FakeClock
from tests.golden.make import SCENES, document
from tests.stage import PointedStore, Stage

FOLDER = Path(__file__).parent.parent / "golden"
SETS = sorted(path for path in FOLDER.iterdir() if path.is_dir() and path.name.isdigit())
FILES = [path for folder in SETS for path in sorted(folder.glob("*.json"))]
ANSWERED = "Order 1042 is shipped with Correos and should arrive on 2026-11-24."
REFUNDED = "Order 1042 is refunded: 49.90 EUR is on its way back to you."
UNKNOWN = "That did not work: the outcome is unknown: it may or may not have happened, and was not tried again."
SENT = {
    "idle": [],
    "only_written_to": ["Hello! I am the demo agent", ANSWERED],
    "waiting_for_an_approval": ["Denied (refund_order), by deadline.", "I may not do that"],
    "approved_but_not_looked_at": ["Approved (refund_order), by Ana.", REFUNDED],
    "waiting_for_a_time": ["Here is what I found"],
    "killed_after_a_step": [ANSWERED],
    "killed_in_a_once_tool": [UNKNOWN],
    "killed_before_the_reply_was_marked": [ANSWERED],
}
"""How what a contact is sent begins, from there to quiescence; a run takes several messages where they wait."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PointedStore]:
    store = PointedStore(tmp_path / "sessions.db")
    yield store
    await store.aclose()


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def content(file: Path) -> Any:
    return json.loads(file.read_text())


async def staged(store: PointedStore, file: Path) -> Stage:
    """The session of that file in the store, as it was when its process was killed; its lease is over."""
    golden = content(file)
    stage = Stage(store, FakeClock(NOON + timedelta(minutes=5)), None)
    stage.conversation = file.stem
    stage.documents.bodies |= {path: compact(plan) for path, plan in golden["plans"].items()}
    stage.documents.bodies[connection_path("bot")] = compact(golden["connection"])
    entries = {key: pending(decode(Entry, compact(entry))) for key, entry in golden["inbox"].items()}
    await SqliteStore.append(store, stage.key, entries, NOON)
    if golden["state"] is not None:
        await commit(store, stage.key, compact(golden["state"]), golden["runs"])
    return stage


async def commit(store: SqliteStore, key: SessionKey, state: bytes, runs: list[Any]) -> None:
    for run in [*runs, None]:
        stored = await SqliteStore.load(store, key)
        assert stored is not None
        archive = Archived(number=run["number"], body=compact(run)) if run is not None else None
        await SqliteStore.commit(store, key, stored.version, state=state, due=NOON, archive=archive)


async def ticked(stage: Stage) -> None:
    """What the tick makes of it, again and again for two days."""
    for _ in range(6):
        async for key in SqliteStore.due(stage.store, stage.clock.now()):
            await stage.bus.wake(key)
        await stage.pump()
        stage.clock.advance(9 * 3600)


def test_there_is_a_set_for_every_schema_version() -> None:
    assert [int(folder.name) for folder in SETS] == list(range(1, SCHEMA_VERSION + 1))
    assert all({path.stem for path in folder.glob("*.json")} == set(SENT) for folder in SETS)


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_a_document_of_an_older_release_is_read_and_continued(store: PointedStore, file: Path) -> None:
    stage = await staged(store, file)
    before = await stage.session()
    await ticked(stage)
    assert await stage.is_quiet()
    said = [delivery.text for delivery in (*stage.channel.settled, *stage.channel.sent)]
    expected = SENT[file.stem]
    if file.stem == "only_written_to":  # one run takes both
        assert len(said) == 1
    else:
        assert [text[: len(start)] for text, start in zip(said, expected, strict=True)] == expected
    session = await stage.session()
    assert session.schema_version == SCHEMA_VERSION
    assert session.epoch > before.epoch or file.stem == "idle"
    runs = [await stage.run(number) for number in range(1, session.runs + 1)]
    assert [event.sequence for run in runs for event in events(run)] == list(range(1, session.sequence + 1))
    assert session.run is None


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
async def test_a_session_of_an_older_release_answers_the_next_message(store: PointedStore, file: Path) -> None:
    stage = await staged(store, file)
    await ticked(stage)
    runs = (await stage.session()).runs
    await stage.say("Where is order 1042?", order=200)
    await stage.pump()
    assert stage.channel.texts[-1] == ANSWERED
    assert (await stage.session()).runs == runs + 1


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nothing_of_an_older_document_is_lost_when_it_is_written_again(file: Path) -> None:
    golden = content(file)
    if golden["state"] is None:
        return
    session = read_state(compact(golden["state"]))
    written = json.loads(state_bytes(session))
    kept = golden["state"] | {"schema_version": SCHEMA_VERSION}
    if kept["run"] is not None and (wait := kept["run"].pop("wait", None)) is not None:
        kept["run"]["open"] = [wait]
    assert_within(kept, written)
    for run in golden["runs"]:
        assert_within(
            {key: value for key, value in run.items() if key != "wait"}, json.loads(encode(decode(Run, compact(run))))
        )


def assert_within(old: Any, new: Any) -> None:
    """Everything that the old value says, the new one says too."""
    if isinstance(old, dict):
        for key, value in old.items():
            assert_within(value, new[key])
    elif isinstance(old, list):
        assert len(old) == len(new)
        for one, other in zip(old, new, strict=True):
            assert_within(one, other)
    elif isinstance(old, str) and re.fullmatch(r"P[\dT][\dA-Z.]*", old):  # a release may write it in other units
        assert decode(timedelta, json.dumps(old)) == decode(timedelta, json.dumps(new))
    else:
        assert old == new


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_the_newest_set_is_what_this_release_writes(store: PointedStore, scene: Any) -> None:
    """A change of the stored shape needs a new schema version, or its fields a default and this set made again before
    the release."""
    golden = content(SETS[-1] / f"{scene.__name__}.json")
    assert shape(golden) == shape(json.loads(json.dumps(await document(store, scene))))


def shape(value: Any) -> Any:
    """The value with its keys, without ids and hashes."""
    if isinstance(value, dict):
        return {re.sub(r"[0-9a-f]{24,}", "…", key): shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


def test_a_document_of_a_newer_release_is_left_to_that_release() -> None:
    state = content(SETS[-1] / "idle.json")["state"] | {"schema_version": SCHEMA_VERSION + 1}
    with pytest.raises(Retryable, match="schema"):
        read(SessionKey("acme", "s"), Stored(state=compact(state), inbox={}, version=1))
