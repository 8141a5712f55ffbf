"""Dollars per million turns by part, and a month without any: counted operations and measured CPU times list prices.

Prices are those of us-central1 (Iowa), without free tiers, in November 2026:
https://cloud.google.com/run/pricing (request-based billing), https://cloud.google.com/firestore/pricing,
https://cloud.google.com/pubsub/pricing, https://cloud.google.com/scheduler/pricing,
https://cloud.google.com/sql/pricing, https://cloud.google.com/secret-manager/pricing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path

import aiohttp

from benchmarks.cloud_turns import Turns, asked, measured
from benchmarks.counts import CountedFirestore
from benchmarks.figures import Figure
from benchmarks.processes import model as model_command
from benchmarks.processes import others, running
from benchmarks.project import Project, Telegram
from shared.clock import SystemClock
from shared.config.demo import TENANT
from shared.domain import ModelReply, ModelRequest, Wake, session_key
from shared.llm import OnText
from shared.sessions.projection import contact_view
from shared.store.firestore import FirestoreStore
from tests.engines import free_port, unsigned_token
from tests.house import House, Model, looks_up, says
from tests.stage import PLAN, tool

WRITE, READ, DELETE = 0.09 / 1e5, 0.03 / 1e5, 0.01 / 1e5
"""Of a Firestore document."""
STORED_MONTH = 0.15 / 2**30
"""A byte in Firestore."""
KEPT_MONTHS = 3.0
"""How long a finished run is kept, unless `RECADO_RETENTION_DAYS` says otherwise."""
CPU_SECOND, GIB_SECOND, REQUEST = 0.000024, 0.0000025, 0.40 / 1e6
"""Of Cloud Run."""
PUBSUB_BYTE = 40 / 2**40
PUBSUB_LEAST = 1_000
"""Bytes that are charged for a publish or a push, at least."""
MEMORY_GIB = {"ingest": 0.5, "run_agent": 1.0, "callbacks": 0.5}
"""As terraform/functions.tf has them, each with one vCPU."""
SQL_MONTH = 0.0105 * 730 + 10 * 0.17
"""The smallest instance (db-f1-micro, shared core) with 10 GB of disk; stopped it costs the disk."""
SQL_STOPPED_MONTH = 10 * 0.17
JOB_MONTH, SECRET_MONTH = 0.10, 0.06
SECRETS = 2
"""The platform's key and the database's password."""
TICKS = 30 * 24 * 60
TICK_READS = 16
"""The tick asks 16 shards for what is due, and a query that finds nothing is billed as one read."""
STREAM_SECONDS = 5.0
"""How long the text of the streamed answer grows."""
STREAMED = 64
"""Turns of that kind."""
WEB_CONNECTION = "demo-web"


@dataclass(frozen=True, slots=True)
class Operations:
    """Of Firestore, a turn; the run's document is deleted once it expires, and a page that listens reads each view."""

    writes: float
    reads: float
    kept: int
    """Bytes of the finished run."""
    puts: int
    """Views that are written by themselves, in a watched turn."""
    views: int
    """Views that its commits carry."""
    seconds: float
    """From the claim to the end."""

    def dollars(self) -> float:
        """What they cost."""
        return self.writes * WRITE + self.reads * READ + DELETE


async def figures(project: Project, telegram: Telegram, folder: Path) -> list[Figure]:
    """Turns of three kinds: an answer, an answer after a tool call, and one whose text somebody watches as it grows."""
    answered = await measured(project, asked(project, telegram, "Hello"), 7_000_000)
    looked_up = await measured(project, asked(project, telegram), 8_000_000)
    streamed = await _streamed(project)
    turns = {"chat": answered, "tool": looked_up, "streaming": streamed}
    counted = {name: await _counted(project.name, folder, name) for name in turns}
    kinds = [_kind(name, counted[name], of) for name, of in turns.items()]
    return [_watched(counted["streaming"]), *kinds, *_idle(looked_up)]


def _watched(counted: Operations) -> Figure:
    """All writes of a watched turn, with one allowed for each second more than an unwatched one has."""
    return Figure(
        figure=f"Firestore writes per watched turn, 1 model call, {STREAM_SECONDS:g} s of text",
        value=counted.writes,
        unit="writes",
        against=f"of them {counted.puts + counted.views} of its view in {counted.seconds:.2f} s",
        ceiling=1 + 4 + floor(counted.seconds),
    )


async def _streamed(project: Project) -> Turns:
    """Turns of web contacts whose text grows for some seconds, shown in a view that they listen to."""
    command, url = model_command(free_port(), STREAM_SECONDS)
    store = FirestoreStore(project.name)

    async def ask(http: aiohttp.ClientSession, ingest: str, number: int) -> None:
        user = f"user{number}"
        key = session_key(TENANT, WEB_CONNECTION, f"{user}/main")
        body = {"connection": WEB_CONNECTION, "id": f"message-{number}", "text": "Hello"}
        headers = {"Authorization": f"Bearer {unsigned_token(project.name, user)}"}
        async with http.post(f"{ingest}/v1/sessions/{key.session}/messages", json=body, headers=headers) as taken:
            assert taken.status == 202, await taken.text()
        await _until_idle(store, contact_view(TENANT, user, key.session))

    with running(command, url, {}, project.folder, cores=others()):
        turns = await measured(project.with_model(url), ask, 9_000_000, STREAMED)
    await store.aclose()
    return turns


async def _until_idle(store: FirestoreStore, view: str) -> None:
    while True:  # a listener would take the processor time that is measured beside it
        body = await store.get(view)
        if body is not None and json.loads(body)["status"] == "idle":
            return
        await asyncio.sleep(0.2)


def _kind(name: str, counted: Operations, turns: Turns) -> Figure:
    parts = {
        f"Firestore ({counted.writes:g} writes, {counted.reads:g} reads, 1 delete)": counted.dollars(),
        f"Cloud Run CPU and memory ({turns.total:.1f} ms)": _computing(turns),
        f"storage ({counted.kept / 1e3:.1f} KB for {KEPT_MONTHS:g} months)": counted.kept * KEPT_MONTHS * STORED_MONTH,
        "requests (2)": 2 * REQUEST,
        "Pub/Sub (1 wake)": 2 * PUBSUB_LEAST * PUBSUB_BYTE,
    }
    return _told(f"cost of a million {name} turns", {part: dollars * 1e6 for part, dollars in parts.items()})


def _idle(turns: Turns) -> list[Figure]:
    """A month in which nobody writes: the tick goes on. A tick takes less than the reply to a turn takes `ingest`."""
    tick = turns.cpu_ms["ingest"] / 1e3 * (CPU_SECOND + GIB_SECOND * MEMORY_GIB["callbacks"])
    parts = {
        f"tick: {TICKS:,} times {TICK_READS} reads": TICKS * TICK_READS * READ,
        "tick: requests and CPU": TICKS * (REQUEST + tick),
        "scheduler": JOB_MONTH,
        "secrets": SECRETS * SECRET_MONTH,
    }
    return [
        _told("cost of a month without turns, Cloud SQL running", parts | {"Cloud SQL": SQL_MONTH}),
        _told("cost of a month without turns, Cloud SQL stopped", parts | {"disk of Cloud SQL": SQL_STOPPED_MONTH}),
    ]


def _told(name: str, parts: Mapping[str, float]) -> Figure:
    by = ", ".join(f"{part} {dollars:.2f}" for part, dollars in parts.items())
    return Figure(figure=name, value=sum(parts.values()), unit="USD", against=by)


def _computing(turns: Turns) -> float:
    return sum(cpu / 1e3 * (CPU_SECOND + GIB_SECOND * MEMORY_GIB[name]) for name, cpu in turns.cpu_ms.items())


@dataclass
class _Streaming(Model):
    """A word each half second to whoever watches."""

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        assert on_text is not None, "somebody watches"
        words = ["word "] * round(STREAM_SECONDS / 0.5)
        for word in words:
            await asyncio.sleep(0.5)
            on_text(word)
        return says("".join(words))


async def _counted(project: str, folder: Path, kind: str) -> Operations:
    """Of one turn of a session that exists."""
    store = CountedFirestore(project)
    watched = kind == "streaming"
    tools = (tool("lookup_order", "keyed"),) if kind == "tool" else ()
    model = _Streaming(lambda _: says("")) if watched else Model(looks_up if tools else lambda _: says("Hello!"))
    house = House(store, folder / f"blobs-{kind}", replace(PLAN, agent=kind, tools=tools), model, SystemClock())
    house.key = replace(house.key, session="c" * 32, tenant=f"cost-{kind}")
    house.channel.fetched = watched  # as a web contact's is
    fields = {"viewer": "uid"} if watched else {}
    before = Counter(store.counts)
    await house.say(1, "Where is my order?", **fields)
    began = time.monotonic()
    await house.driver.drive(Wake(key=house.key, id="w"))
    seconds = time.monotonic() - began
    counted = store.counts - before
    puts, views = (house.store.calls[name] for name in ("put", "views"))
    kept = await store.run(house.key, 1)
    assert kept is not None
    await store.aclose()
    reads = counted["reads"] + puts + views
    return Operations(writes=counted["writes"], reads=reads, kept=len(kept), puts=puts, views=views, seconds=seconds)
