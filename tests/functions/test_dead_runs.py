"""Runs that were set aside, and runs so long that their first steps lie in pages: what operators see of them."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from shared.cli.embedded import TENANT
from shared.codec import decode, encode
from shared.domain import SessionKey
from shared.sessions import dead
from shared.sessions.document import Moved, Page, Run, read
from shared.sessions.pages import page_path
from shared.store import Archived
from tests.functions.conftest import Stack, is_problem
from tests.functions.test_cli import recado
from tests.functions.test_events import following, take

NOBODY = f"{'0' * 32}-1"


async def ask(stack: Stack, method: str, path: str, key: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or stack.keys.operator}"}
    answer = await stack.http.request(method, f"/v1/dead-runs{path}", headers=headers)
    await stack.idle()
    return answer


async def run_of(stack: Stack, session: str, number: int = 1) -> Run:
    return decode(Run, (await stack.read(f"/v1/sessions/{session}/runs/{number}")).content)


@pytest.fixture
async def died(stack: Stack) -> str:
    """The id of a dead run of chat 77."""
    key = SessionKey(TENANT, await stack.say("Hello"))
    stored = await stack.here.store.load(key)
    session = read(key, stored) if stored is not None else None
    assert session is not None
    made = dead.of(session, await run_of(stack, key.session), "5 attempts in a row recorded nothing", stack.clock.now())
    await stack.here.store.put(dead.path(key, 1), encode(made))
    return made.id


async def test_a_dead_run_is_listed_and_shown_with_what_is_known(stack: Stack, died: str) -> None:
    (listed,) = (await ask(stack, "GET", "")).json()
    shown = (await ask(stack, "GET", f"/{died}")).json()

    assert (listed["id"], listed["messages"], listed["requeued_at"]) == (died, 1, None)
    assert listed["reason"] == "5 attempts in a row recorded nothing"
    assert (await stack.read(listed["run"])).status_code == 200
    assert {name: shown[name] for name in listed} == listed
    assert [message["text"] for message in shown["inputs"]] == ["Hello"]
    assert [step["key"] for step in shown["steps"]] == ["model-1"]


async def test_a_dead_run_that_is_put_back_is_answered_by_a_new_run_once(stack: Stack, died: str) -> None:
    answer = await ask(stack, "POST", f"/{died}/requeue")
    again = await ask(stack, "POST", f"/{died}/requeue")
    session = died.partition("-")[0]
    runs = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert (answer.status_code, answer.json()["requeued_at"] is None) == (202, False)
    assert is_problem(again, 410, "put back at 2026-11-20T12:00")
    assert [run["inputs"][0]["text"] for run in runs] == ["Hello", "Hello"]
    assert len(stack.shown()) == 2
    assert (await stack.read(f"/v1/sessions/{session}")).json()["late"] == 0


async def test_what_was_written_since_was_answered_first_and_counts_as_late_for_nobody(stack: Stack, died: str) -> None:
    session = await stack.say("Where is order 1042?")
    await ask(stack, "POST", f"/{died}/requeue")
    await stack.say("Thanks")
    runs = (await stack.read(f"/v1/sessions/{session}/runs")).json()

    assert [run["inputs"][0]["text"] for run in reversed(runs)] == ["Hello", "Where is order 1042?", "Hello", "Thanks"]
    assert (await stack.read(f"/v1/sessions/{session}")).json()["late"] == 0


async def test_dead_runs_are_for_operators_of_the_tenant(stack: Stack, died: str) -> None:
    for method, path in (("GET", ""), ("GET", f"/{died}"), ("POST", f"/{died}/requeue")):
        assert is_problem(await ask(stack, method, path, stack.keys.invoker), 403)
    assert (await ask(stack, "GET", "", stack.keys.stranger)).json() == []
    for method, path in (("GET", f"/{died}"), ("POST", f"/{died}/requeue")):
        assert is_problem(await ask(stack, method, path, stack.keys.stranger), 404)
    assert (await ask(stack, "GET", f"/{died}")).json()["requeued_at"] is None


@pytest.mark.parametrize(
    ("path", "status", "word"), [(f"/{NOBODY}", 404, "dead run"), ("/x", 400, "id"), ("?limit=0", 400, "limit")]
)
async def test_what_is_not_there_or_does_not_fit_is_said(stack: Stack, path: str, status: int, word: str) -> None:
    assert is_problem(await ask(stack, "GET", path), status, word)


async def test_the_command_line_lists_shows_and_requeues(stack: Stack, server: str, died: str) -> None:
    listed = await recado(stack.home, "dead-runs", "list", "--url", server)
    shown = await recado(stack.home, "dead-runs", "show", died, "--url", server)
    requeued = await recado(stack.home, "dead-runs", "requeue", died, "--url", server)
    again = await recado(stack.home, "dead-runs", "requeue", died, "--url", server)
    await stack.idle()

    assert [done.code for done in (listed, shown, requeued, again)] == [0, 0, 0, 1], requeued.err
    assert listed.out.count("\n") == 1
    assert all(died in done.out for done in (listed, shown, requeued))
    assert again.err.startswith("recado: 410 No longer possible: dead run: it was put back")
    assert len(stack.shown()) == 2


@pytest.mark.parametrize("arguments", [("list", NOBODY), ("show",), ("requeue",)])
async def test_the_command_line_says_which_action_takes_an_id(stack: Stack, arguments: tuple[str, ...]) -> None:
    done = await recado(stack.home, "dead-runs", *arguments)
    assert (done.code, done.err.startswith("recado: run: list takes none")) == (1, True)


# Long runs


@pytest.fixture
async def long(stack: Stack) -> str:
    """The id of a session whose first run has its first turn in a page."""
    key = SessionKey(TENANT, await stack.say("Where is order 1042?"))
    run = await run_of(stack, key.session)
    await stack.here.store.put(page_path(key, 1, 1), encode(Page(steps=run.steps[:2])))
    stored = await stack.here.store.load(key)
    assert stored is not None
    assert stored.state is not None
    short = replace(run, steps=run.steps[2:], moved=Moved(pages=1, turns=1))
    archived = Archived(number=1, body=encode(short))
    await stack.here.store.commit(key, stored.version, state=stored.state, due=None, archive=archived)
    return key.session


async def test_a_long_run_is_shown_whole(stack: Stack, long: str) -> None:
    steps = [step.key for step in (await run_of(stack, long)).steps]
    (listed,) = (await stack.read(f"/v1/sessions/{long}/runs")).json()

    assert steps == ["model-1", "tool-1.0", "model-2"]
    assert [step["key"] for step in listed["steps"]] == ["model-2"]


@pytest.mark.parametrize("after", range(5))
async def test_the_events_of_a_long_run_are_replayed_whole_from_anywhere(
    stack: Stack, server: str, long: str, after: int
) -> None:
    async with following(stack, server, long, after=after) as events:
        seen = await take(events, 5 - after)

    assert [event["id"] for event in seen] == list(range(after + 1, 6))
    named = ["message", "model-1", "tool-1.0", "model-2", "text"]
    assert [event.get("step", event["event"]) for event in seen] == named[after:]
