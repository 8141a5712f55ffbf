"""What a turn and a cold start cost, by counts that are the same on every machine: what grows here was meant to."""

from __future__ import annotations

import cProfile
import os
import pstats
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shared.store.sqlite import SqliteStore
from tests.house import House, Model, looks_up
from tests.stage import PLAN, tool

ROOT = Path(__file__).parents[2]
TURNS = 20
CALLS = 7_000
"""Of Python functions in the event loop, for a turn of two model calls and one tool call: 6,200 in November 2026."""
MODULES = {"ingest": 980, "callbacks": 1_035, "run_agent": 1_065, "api": 970}
"""Imported once a function has its store, bus and keys: 950, 1,006, 1,036 and 941 in November 2026."""
_STARTED = """
import asyncio, sys, functions.{name}.main
from shared.wiring import begin, parts

async def main():
    begin()
    here = parts()
    here.store._client, here.bus._publisher, here.box, here.published

asyncio.run(main())
print(len(sys.modules))
"""


async def test_a_turn_takes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "recado.db")
    house = House(store, tmp_path / "blobs", replace(PLAN, tools=(tool("lookup_order", "keyed"),)), Model(looks_up))

    async def turns(first: int) -> None:
        for number in range(first, first + TURNS):
            house.key = replace(house.key, session=f"{number:032x}")
            await house.say(1, "Where is my order?")
            await house.drive()

    await turns(0)
    with cProfile.Profile() as profile:
        await turns(TURNS)
    await store.aclose()
    found = pstats.Stats(profile).prim_calls // TURNS  # type: ignore[attr-defined]  # typeshed does not know it
    assert found <= CALLS, f"{found} calls a turn"


@pytest.mark.parametrize("name", MODULES)
def test_a_cold_start_imports_no_more_than_it_did(name: str, tmp_path: Path) -> None:
    nowhere = "127.0.0.1:9"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GOOGLE_CLOUD_PROJECT": "demo-costs",
        "FIRESTORE_EMULATOR_HOST": nowhere,
        "PUBSUB_EMULATOR_HOST": nowhere,
        "RECADO_HOME": str(tmp_path / "home"),
        "LOG_FORMAT": "json",
    }
    command = [sys.executable, "-c", _STARTED.format(name=name)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= MODULES[name], f"{done.stdout.strip()} modules"
