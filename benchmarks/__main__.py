"""Measures what a conversation costs and prints a line of JSON a figure; with all of them it writes
docs/performance.md. `make bench`, or `make bench FIGURES="turns cold"` for some of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks import cloud_turns, cold_start, concurrency, cost, counts, first_text, leak, live, page, turns
from benchmarks.figures import Figure
from benchmarks.processes import model, others, running
from benchmarks.project import Telegram, project
from tests.chaos.http import Reply, Request, serving
from tests.engines import free_port

GROUPS = ("cold", "turns", "cloud", "counts", "growth", "concurrency", "leak", "live", "text", "cost")


async def main(names: list[str]) -> int:
    """Measure these groups; 0 when every ceiling is kept."""
    os.sched_setaffinity(0, others())  # what is measured has a core of its own
    found: list[Figure] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        command, url = model(free_port())
        stack.enter_context(running(command, url, {}, folder, cores=others()))
        telegram, address = await stack.enter_async_context(_telegram())
        alone: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
            "turns": lambda: turns.figures(url, folder),
            "growth": lambda: counts.growth(folder),
            "text": lambda: first_text.figures(folder),
            "leak": lambda: leak.figures(url, folder),
        }
        for name in filter(alone.__contains__, names):
            _tell(found, await alone[name]())
        if set(names) - alone.keys():
            here = await stack.enter_async_context(project(folder, url, address))
            together: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
                "cold": lambda: cold_start.figures(here),
                "cloud": lambda: cloud_turns.figures(here, telegram, url),
                "counts": lambda: counts.operations(here, folder),
                "concurrency": lambda: concurrency.figures(here, telegram),
                "live": lambda: live.figures(here),
                "cost": lambda: cost.figures(here, telegram, folder),
            }
            for name in filter(together.__contains__, names):
                _tell(found, await together[name]())
    if set(names) == set(GROUPS):
        page.write(found)
    return 0 if all(figure.kept for figure in found) else 1


@asynccontextmanager
async def _telegram() -> AsyncIterator[tuple[Telegram, str]]:
    telegram = Telegram()

    async def handle(request: Request) -> Reply:
        return Reply(200, json.dumps(telegram.answer(request.path, request.body)).encode())

    async with serving(handle) as address:
        yield telegram, address


def _tell(found: list[Figure], figures: list[Figure]) -> None:
    for figure in figures:
        print(figure.line(), flush=True)
    found += figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all when none is named")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"no group is called {', '.join(sorted(unknown))}; choose from {', '.join(GROUPS)}")
    arguments.groups = arguments.groups or list(GROUPS)
    return arguments


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_arguments().groups)))
