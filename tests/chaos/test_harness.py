"""What breaks the system does so where and when it is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.balancer import Balancer, Worker
from tests.chaos.chance import chance
from tests.chaos.http import Reply, Request, call, serving
from tests.chaos.proxy import Proxy, before
from tests.engines import free_port

PUSH = Request(
    "POST", "/wakes", {}, json.dumps({"message": {"messageId": "1", "attributes": {"session": "s"}}}).encode(), b""
)
LIFE = """
import asyncio, sys
from pathlib import Path
from tests.chaos.points import Pointed, Points

class Port:
    async def send(self): print("sent", flush=True)

async def main():
    port = Pointed(Port(), "port", Points("w", Path(sys.argv[1]), arm=sys.argv[2], named=True))
    await port.send()
    await port.send()

asyncio.run(main())
"""


@pytest.mark.parametrize(("point", "sent"), [("before port.send#2", 1), ("after port.send#2", 2)])
def test_a_process_dies_at_the_point_that_it_is_told_and_its_journal_outlives_it(
    tmp_path: Path, point: str, sent: int
) -> None:
    journal = tmp_path / "journal"
    command = (sys.executable, "-c", LIFE, str(journal), point)
    life = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (life.returncode, life.stdout.split()) == (-9, ["sent"] * sent)
    assert json.loads(journal.read_text().splitlines()[-1]) == {"killed": point}


async def test_a_push_to_a_dead_process_is_answered_with_502_and_the_death_is_told() -> None:
    dead: list[Worker] = []

    async def died(worker: Worker) -> None:
        dead.append(worker)

    worker = Worker("w", "run_agent", 0, free_port())
    reply = await Balancer([worker], died=died).handle(PUSH)
    assert (reply.status, dead, worker.sessions) == (502, [worker], [])


async def test_a_process_that_is_silent_for_longer_than_the_limit_is_cut_off_with_504() -> None:
    async def silent(request: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(silent) as url:
        worker = Worker("w", "run_agent", 0, int(url.rpartition(":")[2]))
        assert (await Balancer([worker], limit=0.1).handle(PUSH)).status == 504


async def test_a_duplicate_push_reaches_the_processes_twice() -> None:
    seen = asyncio.Queue[str]()

    async def taken(request: Request) -> Reply:
        seen.put_nowait(request.path)
        return Reply(204)

    async with serving(taken) as url:
        balancer = Balancer([Worker("w", "run_agent", 0, int(url.rpartition(":")[2]))], duplicates=1.0)
        assert (await balancer.handle(PUSH)).status == 204
        async with asyncio.timeout(5):
            assert [await seen.get(), await seen.get()] == ["/wakes", "/wakes"]
        await balancer.aclose()


@pytest.mark.parametrize(("answers_only", "taken"), [(False, 0), (True, 1)])
async def test_the_proxy_loses_a_request_before_it_is_heard_or_the_answer_behind_it(
    answers_only: bool,  # noqa: FBT001  what the test is about
    taken: int,
) -> None:
    heard: list[str] = []
    lost: list[str] = []

    async def take(request: Request) -> Reply:
        heard.append(request.path)
        return Reply(200, b"x" * 100)

    async with serving(take) as url:
        proxy = Proxy(url.removeprefix("http://"), chance(1), 1.0, answers_only=answers_only, cut=lost.append)
        async with before(proxy):
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await call(int(proxy.address.rpartition(":")[2]), PUSH, 5.0)
    assert (len(heard), lost) == (taken, ["answer" if answers_only else "request"])
