"""Short stories, each of which passes points that no other does. They end when all is told; a lane checks the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from shared.domain import Texts
from tests.chaos import script
from tests.chaos.fleet import Fleet
from tests.chaos.history import ModelCall, Sent
from tests.chaos.patience import patiently

LIMIT = 45.0
STALLS = 5


class Stuck(Exception):
    """A story did not come to its end."""


@dataclass
class Scene:
    """One chat, and where its story is told."""

    fleet: Fleet
    chat: str
    otherwise: set[str] = field(default_factory=set)
    """Messages that the model does not answer, as the story goes."""
    connection: str = "bot"

    async def say(self, options: str = "", connection: str = "") -> str:
        """Write; the message's name."""
        self.connection = connection or self.connection
        return await self.fleet.contacts.say(self.chat, options, self.connection)

    async def answered(self, *names: str) -> None:
        """Return once these are answered."""
        world = self.fleet.world
        await self._until(lambda: all(name in world.answered for name in names), f"{names} answered")

    async def sent(self, found: Callable[[Sent], bool], what: str, limit: float = LIMIT) -> Sent:
        """The first message in the chat that fits."""
        chat, history = self.chat, self.fleet.world.history

        def first() -> Sent | None:
            return next((sent for sent in history.sent if sent.chat == chat and found(sent)), None)

        await self._until(lambda: first() is not None, what, limit)
        sent = first()
        assert sent is not None
        return sent

    async def asked(self, turn: int = 1) -> ModelCall:
        """The first call of the model in this chat for that turn."""
        chat, history = self.chat, self.fleet.world.history

        def first() -> ModelCall | None:
            return next((call for call in history.models if call.chat == chat and call.turn == turn), None)

        await self._until(lambda: first() is not None, f"turn {turn} asked")
        call = first()
        assert call is not None
        return call

    async def quiet(self) -> None:
        """Return once the session has nothing left to do."""
        key = self.fleet.contacts.key(self.chat, self.connection)
        for _ in range(200):
            stored = await patiently(lambda: self.fleet.store.load(key))
            if stored is not None and stored.state is not None and not stored.inbox:
                state = json.loads(stored.state)
                if not (state["lease"] or state["run"] or state["outbox"]):
                    return
            await asyncio.sleep(0.1)
        raise Stuck(f"chat {self.chat}: never quiet")

    async def _until(self, found: Callable[[], object], what: str, limit: float = LIMIT) -> None:
        if not await self.fleet.world.until(found, limit):
            raise Stuck(f"chat {self.chat}: not {what} within {limit:g} s")


async def plain(scene: Scene) -> None:
    await scene.answered(await scene.say("k=1"))


async def keyed(scene: Scene) -> None:
    await scene.answered(await scene.say("k=2 t=1 e=keyed"))


async def once(scene: Scene) -> None:
    await scene.answered(await scene.say("k=2 t=1 e=once"))


async def parallel(scene: Scene) -> None:
    await scene.answered(await scene.say("k=2 t=3 e=keyed,once,pure"))


async def approval(scene: Scene) -> None:
    """The contact is asked, and taps."""
    name = await scene.say("k=2 t=1 e=ask")
    question = await scene.sent(lambda sent: bool(sent.buttons), "the contact asked")
    await scene.fleet.contacts.tap(question, "Approve", scene.connection)
    await scene.answered(name)


async def callback(scene: Scene) -> None:
    await scene.answered(await scene.say("k=2 t=1 e=callback"))


async def early(scene: Scene) -> None:
    """The callback comes before the tool has said that it waits."""
    await scene.answered(await scene.say("k=2 t=1 e=early"))


async def timer(scene: Scene) -> None:
    await scene.answered(await scene.say("k=2 t=1 e=timer"))


async def steered(scene: Scene) -> None:
    """A second message comes while the first is answered."""
    first = await scene.say("k=3 t=1 e=keyed wait=0.25")
    await scene.asked(1)
    await scene.answered(first, await scene.say())


async def interrupted(scene: Scene) -> None:
    """Likewise, and what the model is writing is dropped."""
    first = await scene.say("k=2 t=1 e=keyed wait=0.4", "interrupt")
    await scene.asked(1)
    await scene.answered(first, await scene.say())


async def cancelled(scene: Scene) -> None:
    """The contact has it stopped, and writes something else."""
    first = await scene.say("k=3 t=1 e=keyed wait=0.8")
    await scene.asked(1)
    scene.otherwise.add(first)
    await scene.fleet.contacts.write(scene.chat, "/stop", scene.connection)
    texts = {Texts().cancelled, Texts().idle}
    await scene.sent(lambda sent: sent.text in texts, "told that it is stopped")
    await scene.answered(await scene.say("k=1"))


async def two_parts(scene: Scene) -> None:
    """A reply that the channel takes in two."""
    await scene.answered(await scene.say("k=1 parts=2"))
    await scene.sent(lambda sent: bool(script.parts(sent.text)), "told the second part")


async def whatsapp(scene: Scene) -> None:
    """The channel whose receipts tell what was taken."""
    await scene.answered(await scene.say("k=2 t=1 e=keyed", "whatsapp"))


async def invoked(scene: Scene) -> None:
    """A caller who waits, and calls again."""
    scene.connection = "api-acme-chaos"
    await scene.fleet.contacts.invoke(scene.chat, "k=2 t=1 e=keyed")


async def posted(scene: Scene) -> None:
    """A caller who does not wait, and is told at an address."""
    scene.connection = "api-acme-chaos"
    await scene.answered(await scene.fleet.contacts.invoke(scene.chat, "k=1", posted=True))


async def long_text(scene: Scene) -> None:
    """A message that becomes a blob."""
    await scene.answered(await scene.say(f"k=1 {'long ' * 600}"))


async def stalled(scene: Scene) -> None:
    """Whoever asks the model dies of it, five times: the run is set aside, and the session goes on."""
    first = await scene.say("k=1 stalls=1")
    scene.otherwise.add(first)
    await scene.sent(lambda sent: sent.text == Texts().failed, "told that it failed", 60.0)
    await scene.answered(await scene.say("k=1"))


Story = Callable[[Scene], Awaitable[None]]
STORIES: Mapping[str, Story] = {
    story.__name__: story
    for story in (
        plain,
        keyed,
        once,
        parallel,
        approval,
        callback,
        early,
        timer,
        steered,
        interrupted,
        cancelled,
        two_parts,
        whatsapp,
        invoked,
        posted,
        long_text,
        stalled,
    )
}
