"""Long texts lie in blobs while they wait, one for each entry, and are gone once a run has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.domain import SessionKey
from shared.sessions.blobs import BLOB_BYTES, blob_path, put_aside
from tests.clock import FakeClock
from tests.fakes import FakeFiles
from tests.stage import PointedStore, Stage, message, says

KEY = SessionKey("acme", "5" * 32)
LONG = "ü" * BLOB_BYTES
Play = Callable[..., Stage]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    """A stage whose model gives these texts, one a call."""
    store = PointedStore(tmp_path / "sessions.db")
    yield lambda *texts: Stage(store, FakeClock(), [says(text) for text in texts])
    await store.aclose()


async def test_a_text_that_is_short_enough_stays_in_its_entry() -> None:
    files = FakeFiles(lambda _: None)
    entry = message(1, "x" * BLOB_BYTES)
    assert await put_aside(files, KEY, entry) == entry
    assert files.bodies == {}


async def test_a_longer_one_lies_in_a_blob_of_the_entry_and_again_in_the_same() -> None:
    files = FakeFiles(lambda _: None)
    first = await put_aside(files, KEY, message(1, LONG))
    again = await put_aside(files, KEY, message(1, LONG))
    other = await put_aside(files, KEY, message(2, LONG))
    assert (first.text, first.size) == ("", len(LONG.encode()))
    assert again == first
    assert other.blob != first.blob
    assert files.bodies == {blob_path(KEY, name): LONG.encode() for name in (first.blob, other.blob)}


async def test_a_blob_is_gone_once_a_run_has_its_text(play: Play) -> None:
    stage = play("Read it")
    await stage.say(LONG)
    assert len(stage.files.bodies) == 1
    await stage.pump()
    assert stage.files.bodies == {}
    assert [said.text for said in (await stage.run()).inputs] == [LONG]


async def test_the_same_text_that_waits_behind_it_keeps_a_blob_of_its_own(play: Play) -> None:
    stage = play("Read it", "And that")
    stage.faults.stop_at("after commit", 1)  # the claim: its blob stays, which does no harm
    await stage.say(LONG)
    await stage.pump()
    await stage.say(LONG, order=2)
    await stage.pump()
    runs = [await stage.run(number) for number in (1, 2)]
    assert [[said.text for said in run.inputs] for run in runs] == [[LONG], [LONG]]


async def test_a_message_that_comes_again_after_its_blob_is_gone_changes_nothing(play: Play) -> None:
    stage = play("Read it", "And you?")
    await stage.say(LONG)
    await stage.pump()
    await stage.say(LONG)
    await stage.put(replace(message(2, "Hi"), conversation=stage.conversation))
    await stage.pump()
    assert [said.text for said in (await stage.run(2)).inputs] == ["Hi"]
    assert stage.files.bodies == {}
