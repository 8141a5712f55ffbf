"""Breaks the running system, one suite after the other, and prints a line of JSON for each; fails when a suite shows a
violation, or a negative control none. `make chaos SUITE=kills SEED=7 SIZE=demand CHAOS_LOG=folder`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.chaos import controls, embedded, kills, network, pauses, random_kills
from tests.chaos.fleet import ROOT, ground
from tests.chaos.report import Report
from tests.chaos.suite import Job, Size

Suite = Callable[[Job], Awaitable[list[Report]]]
SUITES: dict[str, Suite] = {
    "kills": kills.run,
    "random": random_kills.run,
    "pauses": pauses.run,
    "network": network.run,
    "embedded": embedded.run,
    "controls": controls.run,
}
SIMULATION = "simulation"
"""The suite that needs no emulator and no process but its own."""
SIMULATED: dict[Size, list[list[str]]] = {"ci": [["--seeds=2000"]], "demand": [["--seeds=100000"], ["--pairs"]]}
SHOWN = 20
"""Violations of a suite that are told; all of them are in its log."""


async def main(names: list[str], seed: int, size: Size, log: Path) -> int:
    """Run them; 0 when all are as they must be."""
    ok = True
    if SIMULATION in names:
        for arguments in SIMULATED[size]:
            ok = await _simulate(*arguments, f"--first-seed={seed}") and ok
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True))
        suites = [SUITES[name] for name in names if name != SIMULATION]
        here = await stack.enter_async_context(ground(Path(folder))) if suites else None
        for suite in suites:
            assert here is not None
            for report in await suite(Job(ground=here, seed=seed, size=size, log=log)):
                _tell(report)
                ok = ok and report.ok
    if not ok:
        print(f"logs of what failed: {log}", file=sys.stderr)  # noqa: T201  likewise
    return 0 if ok else 1


def _tell(report: Report) -> None:
    print(report.line(), flush=True)  # noqa: T201  what it is run for
    if not report.ok:
        for line in report.seen[:SHOWN] or ["the mistake was made, and nothing was found"]:
            print(f"  {line}", file=sys.stderr)  # noqa: T201  likewise


async def _simulate(*arguments: str) -> bool:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.chaos.simulation", *arguments, cwd=ROOT)
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _arguments() -> argparse.Namespace:
    names = [SIMULATION, *SUITES]
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(names)}; all when none is named")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", choices=("ci", "demand"), default="ci")
    parser.add_argument("--log", type=Path, default=None, help="folder for the logs of what failed")
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(names):
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    arguments.suites = arguments.suites or names
    return arguments


if __name__ == "__main__":
    chosen = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is told to end ends the engines as well
    where = chosen.log or Path(tempfile.mkdtemp(prefix="chaos-log-"))
    where.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(chosen.suites, chosen.seed, chosen.size, where)))
