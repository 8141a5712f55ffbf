"""One simulation: processes, their store and bus, the people who write to them, and the clock that drives all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any, get_args

from shared.codec import encode, fingerprint
from shared.domain import (
    ChannelName,
    Connection,
    Contact,
    Delivery,
    Entry,
    Receipt,
    SessionKey,
    Wake,
    digest,
    session_key,
)
from shared.errors import BadRequest, Gone, Retryable
from shared.llm.route import Route
from shared.orchestrator.drive import Driver
from shared.orchestrator.invoke import Invoker
from shared.published import Published, connection_path, plan_path
from shared.sessions.accept import accept
from shared.sessions.callback import answer
from shared.sessions.receipts import record
from shared.tools import Toolbox
from tests.chaos.memory import MemoryFiles, MemoryStore
from tests.chaos.simulation.agents import (
    ANA,
    BURST,
    MAX,
    MOST_TICKS,
    PACE,
    PATIENCE_SECONDS,
    QUIET_TICKS,
    SAID,
    TENANT,
    TICK_SECONDS,
    Talk,
    plan_of,
)
from tests.chaos.simulation.broker import Broker
from tests.chaos.simulation.faults import Crash, Faults
from tests.chaos.simulation.history import History
from tests.chaos.simulation.process import (
    Process,
    ProcessBus,
    ProcessChannel,
    ProcessClock,
    ProcessFiles,
    ProcessGateway,
    ProcessStore,
)
from tests.chaos.simulation.program import Command, Program
from tests.chaos.simulation.world import World
from tests.clock import NOON


class Town:
    """Made inside the loop; `live` it once."""

    def __init__(self, program: Program, *, store: type[MemoryStore] = MemoryStore, verbose: bool = False) -> None:
        self.program = program
        self.loop = asyncio.get_running_loop()
        self.random = Random(program.seed)  # noqa: S311  chance that can be had again, not a secret
        self.history = History(self.loop.time, skewed=program.skew > 0, verbose=verbose)
        self.faults = Faults(self.random, program.rates, at=program.kills_at)
        self.store = store(ProcessClock(self.random), room=program.room, page=4)
        self.files = MemoryFiles()
        self.talks = [self._talk(number) for number in range(len(program.channels))]
        sessions = {talk.conversation: talk.key for talk in self.talks}
        self.world = World(self.random, self.faults, self.history, program.manner, sessions)
        self.world.outside = self
        self.broker = Broker(self._push, self.faults, self.history, deadline=program.slice_seconds + 60.0)
        self._started = 0
        self.processes = [self._process(number) for number in range(program.processes)]
        self.doors = [self._process(number) for number in range(program.processes)]
        """The processes of `ingest` and `callbacks`: what is killed there drives no session."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self) -> History:
        """All that the program says, and then time until nothing is left to do."""
        ticking = self.loop.create_task(self._ticks())
        for command in self.program.commands:
            await asyncio.sleep(command.after)
            self._obey(command)
        await asyncio.sleep(self.program.slack)
        self.faults.over = True
        for process in (*self.processes, *self.doors):
            process.paused_until = 0.0
        still, writes = 0, self.history.writes
        for _ in range(MOST_TICKS):
            if self.quiet() or still == QUIET_TICKS:
                break
            await asyncio.sleep(TICK_SECONDS)
            still = still + 1 if self.history.writes == writes else 0
            writes = self.history.writes
        if not self.quiet():
            self.history.wrong("stuck", self._left())
        ticking.cancel()
        return self.history

    def stop(self) -> None:
        """Nothing goes on."""
        for task in self._tasks:
            task.cancel()

    def quiet(self) -> bool:
        """Whether nothing is left to do, anywhere."""
        return self.broker.idle and not self._tasks and not self._left()

    def _left(self) -> str:
        for talk in self.talks:
            kept = self.store.kept.get(talk.key)
            if kept is None:
                continue
            state = self.history.followed[talk.key].state
            left = [name for name in ("run", "lease", "outbox") if state.get(name)]
            entries = [*kept.inbox, *kept.beside]
            if left or entries or kept.due is not None:
                return f"{talk.key.session[:4]}: {left} inbox {len(entries)} due {kept.due}"
        return ""

    # what the program says

    def _obey(self, command: Command) -> None:
        talk, number = self.talks[command.session], command.number
        process = self.processes[number % len(self.processes)]
        match command.do:
            case "kill":
                self.faults.counts["kill"] += 1
                process.kill()
            case "pause":
                process.pause(command.seconds)
            case "store_down":
                self.faults.store_down_until = self.loop.time() + command.seconds
            case "bus_down":
                self.faults.bus_down_until = self.loop.time() + command.seconds
            case _:
                self._speak(command, talk, number)

    def _speak(self, command: Command, talk: Talk, number: int) -> None:
        match command.do:
            case "say" | "poison" | "long" | "burst":
                for _ in range(BURST if command.do == "burst" else 1):
                    self._say(talk, f"u{len(talk.said)}u {SAID.get(command.do, 'Hello')}")
            case "again" if talk.said:
                self._bring(talk, talk.said[number % len(talk.said)])
            case "stop":
                self._bring(talk, self._entry(talk, "stop", text="/stop"))
            case "watch":
                self._bring(talk, self._entry(talk, "watch"))
            case "tap" if talk.prompts:
                self._tap(talk, talk.prompts[number % len(talk.prompts)], by=(ANA, MAX)[number % 2])
            case "answer":
                waits = talk.waits or ["c1-tool-1-0"]
                token = waits[number % len(waits)]
                self._bring(talk, self._entry(talk, "answer", token=token, result={"answer": "once more"}))

    def _say(self, talk: Talk, text: str) -> None:
        entry = self._entry(talk, "message", text=text)
        talk.said.append(entry)
        if talk.connection.channel == "api" and self.program.invokes:
            self._spawn(self._invoke(talk, entry))
        else:
            self._bring(talk, entry)

    def _entry(self, talk: Talk, kind: Any, **values: Any) -> Entry:
        talk.orders += 1
        given: dict[str, Any] = {"contact": ANA, **values}
        return Entry(
            id=digest(talk.connection.id, talk.conversation, str(talk.orders)),
            kind=kind,
            connection=talk.connection.id,
            conversation=talk.conversation,
            order=talk.orders,
            received_at=self._now(),
            viewer="ana" if talk.connection.channel == "web" else "",
            **given,
        )

    # `Outside`

    def prompted(self, key: SessionKey, delivery: Delivery) -> None:
        """Ana taps a button, mostly once, in time, and herself."""
        talk = self._of(key)
        talk.prompts.append(delivery)
        if self.program.manner.steady:
            self._later(2.0, lambda: self._tap(talk, delivery, yes=True))
            return
        for _ in range(self.random.choice((0, 1, 1, 1, 1, 2))):
            by = MAX if self.random.random() < 0.1 else ANA
            self._later(self.random.choice((0.1, 3.0, 30.0, 239.0, 260.0)), partial(self._tap, talk, delivery, by))

    def called(self, key: SessionKey, wait: str, kind: str) -> None:
        """Whoever was asked answers: mostly once, sometimes before the wait is stored, or too late."""
        talk = self._of(key)
        talk.waits.append(wait)
        if self.program.manner.steady:
            self._later(2.0, lambda: self._answer(talk, wait))
            return
        for _ in range(self.random.choice((0, 1, 1, 1, 2))):
            self._later(self.random.choice((0.0, 0.02, 2.0, 30.0, 310.0)), lambda: self._answer(talk, wait))

    def delivered(self, key: SessionKey, delivery: Delivery, provider_id: str) -> None:
        """The provider reports it, soon, late or never."""
        talk = self._of(key)
        if self.program.manner.steady or self.random.random() < 0.9:
            after = 1.0 if self.program.manner.steady else self.random.choice((0.05, 1.0, 10.0, 45.0))
            self._later(after, lambda: self._receipt(talk, delivery, provider_id))

    def _tap(self, talk: Talk, prompt: Delivery, by: Contact = ANA, *, yes: bool | None = None) -> None:
        yes = self.random.random() < 0.7 if yes is None else yes
        token = prompt.buttons[0].data.split(":")[1]
        talk.orders += 1
        self._bring(talk, self._entry(talk, "verdict", contact=by, token=token, approved=yes, tap=f"tap{talk.orders}"))

    def _answer(self, talk: Talk, wait: str) -> None:
        result = {"answer": f"a{self.random.randrange(1000)}a"}

        async def answered(process: Process) -> None:
            with suppress(Gone, BadRequest):
                entry = await answer(ProcessStore(self.store, process), talk.key, wait, result, self._now())
                await self._accept(process, talk.key, entry)

        self._spawn(self._until_taken("callback", answered))

    def _receipt(self, talk: Talk, delivery: Delivery, provider_id: str) -> None:
        receipt = Receipt(key=talk.key, delivery=delivery.id, provider_id=provider_id, status="sent", at=self._now())

        async def recorded(process: Process) -> None:
            accepts = partial(self._accept, process)
            await record(ProcessStore(self.store, process), accepts, receipt, self._now(), PACE.expiry(self._now()))

        self._spawn(self._until_taken("receipt", recorded))

    # how it gets into the processes

    def _bring(self, talk: Talk, entry: Entry) -> None:
        self._spawn(self._brought(talk, entry))

    async def _brought(self, talk: Talk, entry: Entry) -> None:
        if self.program.accepts_early:
            self.history.accepted[talk.key].setdefault(entry.id, entry)
            with suppress(Crash):
                await self.doors[0].serve("ingest", partial(self._accept, self.doors[0], talk.key, entry))
            return
        await self._until_taken("ingest", lambda process: self._accept(process, talk.key, entry))
        self.history.accepted[talk.key].setdefault(entry.id, entry)

    async def _until_taken(
        self,
        what: str,
        request: Callable[[Process], Coroutine[Any, Any, None]],
        processes: list[Process] | None = None,
        key: SessionKey | None = None,
    ) -> None:
        """Whoever calls does so until he is told that it was taken."""
        while True:
            process = self._alive(self.doors if processes is None else processes)
            if process is not None:
                with suppress(Crash, Retryable):
                    await process.serve(what, partial(request, process), key)
                    return
            await asyncio.sleep(1.0 if self.program.manner.steady else self.random.uniform(0.5, 4.0))

    async def _invoke(self, talk: Talk, entry: Entry) -> None:
        """The caller waits for the answer, and calls again with the same message when the line is cut."""

        async def invoked(process: Process) -> None:
            found = await process.invoker.invoke(talk.key, entry, patience=PATIENCE_SECONDS)
            self.history.accepted[talk.key].setdefault(entry.id, entry)
            if found.run is not None and found.run.outcome is not None:
                self.history.told[talk.key, entry.id] = (found.run.number, found.run.reply)

        await self._until_taken("invoke", invoked, self.processes, talk.key)

    async def _accept(self, process: Process, key: SessionKey, entry: Entry) -> None:
        store, bus = ProcessStore(self.store, process), ProcessBus(self.broker, process)
        clock = ProcessClock(self.random, process)
        await accept(store, ProcessFiles(self.files, process), bus, clock, PACE, key, entry)

    async def _push(self, wake: Wake) -> bool:
        process = self._alive(self.processes)
        if process is None:
            return False
        try:
            await process.serve(wake.id, lambda: process.driver.drive(wake), wake.key)
        except Crash:
            return False
        except Retryable as error:
            self.history.note(f"wake {wake.id} comes again: {type(error).__name__} {error}")
            return False
        except Exception as error:  # noqa: BLE001  a bug: the function would answer 500, and it would come again
            self.history.wrong("error", f"{type(error).__name__}: {error}")
            return False
        return True

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            process = self._alive(self.doors)
            if process is not None:
                with suppress(Crash, Retryable):
                    await process.serve("tick", partial(self._tick, process))

    async def _tick(self, process: Process) -> None:
        store, bus = ProcessStore(self.store, process), ProcessBus(self.broker, process)
        async for key in store.due(self._now()):
            await bus.wake(key)

    # the processes

    def _alive(self, processes: list[Process]) -> Process | None:
        """One that is up; one that died is started again before long."""
        number = self.random.randrange(len(processes))
        process = processes[number]
        if not process.dead:
            return process
        if self.program.manner.steady or self.random.random() < 0.5:
            processes[number] = self._process(number)
            return processes[number]
        return None

    def _process(self, number: int) -> Process:
        self._started += 1
        process = Process(f"p{number}.{self._started}", self.faults, self.history)
        skew = self.random.uniform(-self.program.skew, self.program.skew)
        store, clock = ProcessStore(self.store, process), ProcessClock(self.random, process, skew)
        gateway = ProcessGateway(self.world, process)
        process.driver = Driver(
            store=store,
            bus=ProcessBus(self.broker, process),
            files=ProcessFiles(self.files, process),
            published=Published(store, clock),
            route=Route({"scripted": lambda: gateway}, clock),
            toolbox=Toolbox(self.world.tools(process), self.world.look_ups(process)),
            channels={name: ProcessChannel(self.world, process, name) for name in get_args(ChannelName)},
            clock=clock,
            pace=PACE,
            slice_seconds=self.program.slice_seconds,
        )
        process.invoker = Invoker(process.driver, store)
        return process

    def _talk(self, number: int) -> Talk:
        plan = plan_of(self.program)
        name, sha = f"c{number}", fingerprint(plan)
        channel = self.program.channels[number]
        connection = Connection(id=name, tenant=TENANT, channel=channel, agent="shop", plan=sha)
        self.store.documents[connection_path(name)] = encode(connection)
        self.store.documents[plan_path(TENANT, sha)] = encode(plan)
        return Talk(session_key(TENANT, name, str(number)), connection, str(number))

    def _of(self, key: SessionKey) -> Talk:
        return next(talk for talk in self.talks if talk.key == key)

    def _now(self) -> datetime:
        return NOON + timedelta(seconds=self.loop.time())

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            act()

        self._spawn(wait())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
