"""The only place where parts are put together, each on first use, inside the running event loop.

Importing this module makes nothing: `parts()` gives the process's parts, and each of them imports and builds what it
needs when it is first asked for. So `ingest` never loads a model library, and only `api` and the command line load
SQLAlchemy.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from typing import TYPE_CHECKING

from shared.clock import Clock, SystemClock
from shared.domain import Principal
from shared.observability import configure
from shared.sessions.pace import Pace
from shared.settings import Settings, current

if TYPE_CHECKING:
    import httpx

    from shared.auth.firebase import FirebaseVerifier
    from shared.auth.oidc import PushVerifier
    from shared.auth.tokens import Tokens
    from shared.bus.local import LocalBus
    from shared.bus.local_results import LocalResults
    from shared.bus.pubsub import PubSubBus
    from shared.channels.results import ResultPoster
    from shared.config.repository import ConfigRepository
    from shared.domain import Entry, Receipt, Result, SessionKey, Wake
    from shared.files.fsspec import AmazonFiles, FolderFiles, GoogleFiles
    from shared.llm import Gateway
    from shared.llm.chat_completions import ChatCompletions
    from shared.llm.litellm import LiteLLM
    from shared.orchestrator.drive import Driver
    from shared.orchestrator.invoke import Invoker
    from shared.published import Published
    from shared.secrets.keyfile import KeyFile
    from shared.store.firestore import FirestoreStore
    from shared.store.sqlite import SqliteStore


COLLECT_AFTER = 50_000
"""New objects until the garbage collector looks at them; 700 is Python's own. What is imported on first use is hardly
ever garbage: with this `ingest` and `api` start in 92 % of the time."""
WOKEN_AT_ONCE = 100
_used: ContextVar[Parts | None] = ContextVar("used", default=None)


def parts() -> Parts:
    """The parts of this process, or those that `using` put in their place.

    Raises `SettingsError` when the process's environment cannot be used.
    """
    return _used.get() or _of_process()


@contextmanager
def using(here: Parts) -> Iterator[None]:
    """Code inside, and tasks started there, get these parts: several stacks may live in one process."""
    token = _used.set(here)
    try:
        yield
    finally:
        _used.reset(token)


@cache
def _of_process() -> Parts:
    return Parts(current())


@cache
def begin() -> None:
    """Set this process's log up, once. Called with a function's first request: its server sets up its own before that.

    From then on garbage is looked for less often. Raises `SettingsError` when the environment cannot be used.
    """
    configure(current())
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


class Parts:
    """Everything there is one of in a process, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock: Clock = SystemClock()

    @cached_property
    def pace(self) -> Pace:
        """Embedded, one process is everything: a short lease and exact times make a restart quick."""
        retention = self.settings.retention_days * 86_400.0
        if self.settings.embedded:
            return Pace(lease=min(self.settings.lease_seconds, 5.0), due=1.0, views=0.1, retention=retention)
        return Pace(lease=self.settings.lease_seconds, retention=retention)

    @cached_property
    def store(self) -> SqliteStore | FirestoreStore:
        """Sessions, archive and published documents."""
        if self.settings.embedded:
            from shared.store.sqlite import SqliteStore

            return SqliteStore(self.settings.home / "sessions.db", clock=self.clock)
        from shared.store.firestore import FirestoreStore

        return FirestoreStore(self.settings.project)

    @cached_property
    def files(self) -> FolderFiles | GoogleFiles | AmazonFiles:
        """Blobs."""
        from shared.files.fsspec import open_files

        return open_files(self.settings.files_url, self.settings.storage_emulator)

    @cached_property
    def bus(self) -> LocalBus | PubSubBus:
        """Wakes, receipts and results."""
        if self.settings.embedded:
            from shared.bus.local import LocalBus

            return LocalBus(self.run_agent, self.clock, receipts=self.record, results=self.local_results)
        from shared.bus.pubsub import PubSubBus

        settings = self.settings
        return PubSubBus(
            settings.project,
            settings.wake_topic,
            settings.delivery_topic,
            settings.result_topic,
            emulator=settings.pubsub_emulator,
        )

    @cached_property
    def local_results(self) -> LocalResults:
        """Results on their way, on the embedded bus."""
        from shared.bus.local_results import LocalResults

        return LocalResults(self.store, self.tell, self.bury, self.clock)

    @cached_property
    def published(self) -> Published:
        """Published configuration, through a cache of ten seconds."""
        from shared.published import Published

        return Published(self.store, self.clock)

    @cached_property
    def repository(self) -> ConfigRepository:
        """Configuration in SQL."""
        from shared.config.repository import ConfigRepository

        return ConfigRepository(self.settings.config_url, self.clock)

    @cached_property
    def box(self) -> KeyFile:
        """Secrets at rest."""
        from shared.secrets.keyfile import KeyFile

        return KeyFile(self.settings.home / "platform.key", self.settings.platform_key)

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """The client of outgoing HTTP; its connections are kept."""
        import httpx

        return httpx.AsyncClient(timeout=httpx.Timeout(20.0, connect=5.0))

    @cached_property
    def result_poster(self) -> ResultPoster:
        """What posts results to callers."""
        from shared.channels.results import ResultPoster

        return ResultPoster(self.box, self.clock, development=self.settings.development)

    @cached_property
    def push_verifier(self) -> PushVerifier:
        """Proves that a push comes from Pub/Sub or the scheduler."""
        from shared.auth.oidc import PushVerifier

        return PushVerifier(
            self._tokens(self.settings.push_audience, self.settings.push_issuer, self.settings.push_certificates_url),
            self.settings.push_service_account,
        )

    @cached_property
    def web_users(self) -> FirebaseVerifier:
        """Knows who signed in to the web client."""
        from shared.auth.firebase import CERTIFICATES, FirebaseVerifier, issuer

        project = self.settings.project
        tokens = self._tokens(project, issuer(project), CERTIFICATES)
        return FirebaseVerifier(tokens, project, self.clock, emulator=bool(self.settings.auth_emulator))

    @cached_property
    def driver(self) -> Driver:
        """What drives sessions: models, tools and channels included."""
        from shared.channels.api import Api
        from shared.channels.telegram import Telegram
        from shared.channels.whatsapp import WhatsApp
        from shared.llm.route import Route
        from shared.orchestrator.drive import Driver
        from shared.tools import Toolbox, demo
        from shared.tools.operators import ask_operator
        from shared.tools.timers import wait_until

        return Driver(
            store=self.store,
            files=self.files,
            bus=self.bus,
            published=self.published,
            route=Route(self._gateways(), self.clock),
            toolbox=Toolbox(
                {
                    "builtin:lookup_order": demo.lookup_order,
                    "builtin:refund_order": demo.refund_order,
                    "builtin:wait_until": wait_until(self.clock),
                    "builtin:ask_operator": ask_operator(self.clock),
                },
                callback=self.callback_address,
            ),
            channels={
                "telegram": Telegram(self.http, self.box, self.settings.telegram_api),
                "whatsapp": WhatsApp(self.http, self.box),
                "api": Api(self.bus),
                "web": Api(self.bus),
            },
            clock=self.clock,
            pace=self.pace,
            slice_seconds=self.settings.slice_seconds,
        )

    @cached_property
    def invoker(self) -> Invoker:
        """What answers callers who wait."""
        from shared.orchestrator.invoke import Invoker

        return Invoker(self.driver, self.store)

    def callback_address(self, key: SessionKey, wait: str) -> str:
        """Where a callback to this wait is posted."""
        import json

        from shared.auth import callback_token

        root = json.loads(self.settings.addresses or "{}").get("callbacks", f"http://127.0.0.1:{self.settings.port}")
        return f"{root}/v1/callbacks/{callback_token.issue(self.box, key, wait)}"

    async def accept(self, key: SessionKey, *entries: Entry) -> None:
        """Put the entries into their session, durably, and wake it; see `sessions.accept`."""
        from shared.sessions.accept import accept

        await accept(self.store, self.files, self.bus, self.clock, self.pace, key, *entries)

    async def wake_due(self) -> int:
        """Publish a wake for every session that is due, and say how many: the tick."""
        if self.settings.embedded:
            await self.local_results.resume()
        woken: list[BaseException | None] = []
        batch: list[SessionKey] = []
        async for key in self.store.due(self.clock.now()):
            batch.append(key)
            if len(batch) == WOKEN_AT_ONCE:
                woken += await asyncio.gather(*map(self.bus.wake, batch), return_exceptions=True)
                batch.clear()
        woken += await asyncio.gather(*map(self.bus.wake, batch), return_exceptions=True)
        for failure in woken:  # only once each of them was tried: one that fails must not hide the others
            if failure is not None:
                raise failure
        return len(woken)

    async def verify_push(self, authorization: str | None) -> None:
        """Raise `Unauthenticated` unless Pub/Sub or the scheduler sent it; the Pub/Sub emulator sends no token."""
        if not self.settings.pubsub_emulator:
            await self.push_verifier.verify(authorization)

    async def record(self, receipt: Receipt) -> None:
        """Keep what a provider reports about a delivery; see `sessions.receipts`."""
        from shared.sessions.receipts import record

        now = self.clock.now()
        await record(self.store, self.accept, receipt, now, self.pace.expiry(now))

    async def tell(self, result: Result) -> None:
        """Post a result to its caller; see `sessions.results`."""
        from shared.sessions.results import tell

        await tell(self.result_poster, self.store, self.clock, result)

    async def bury(self, result: Result) -> None:
        """Keep a result that no attempt could post where operators find it."""
        from shared.sessions.results import bury

        await bury(self.store, self.clock, result, "every attempt failed")

    async def principal(self, authorization: str | None) -> Principal:
        """Who calls: an API key, or else whoever signed in to the web client. Raises `Unauthenticated`."""
        from shared.auth.api_key import authenticate

        if self.settings.embedded or (authorization or "").startswith("Bearer rk_"):
            return await authenticate(authorization, self.published)
        return Principal(tenant="", id=await self.web_users.user(authorization), role="contact")

    async def run_agent(self, wake: Wake) -> None:
        """Drive one session for one wake."""
        await self.driver.drive(wake)

    def _tokens(self, audience: str, issuer: str, certificates_url: str) -> Tokens:
        from shared.auth.tokens import Tokens

        return Tokens(
            audience=audience, issuer=issuer, certificates_url=certificates_url, http=self.http, clock=self.clock
        )

    async def aclose(self) -> None:
        """Close what was made, the bus first: what it has in flight uses the rest."""
        for name in ("bus", "litellm", "own_models", "result_poster", "http", "repository", "files", "store"):
            if name in self.__dict__:
                await self.__dict__[name].aclose()

    def _gateways(self) -> dict[str, Callable[[], Gateway]]:
        from shared.llm.scripted import Scripted

        gateways: dict[str, Callable[[], Gateway]] = {"scripted": Scripted, "": lambda: self.litellm}
        if self.settings.own_models:
            gateways["openai"] = lambda: self.own_models
        return gateways

    @cached_property
    def litellm(self) -> LiteLLM:
        """Every model that no other gateway serves."""
        from shared.llm.litellm import LiteLLM

        return LiteLLM()

    @cached_property
    def own_models(self) -> ChatCompletions:
        """The models of a server of one's own."""
        from shared.llm.chat_completions import ChatCompletions

        return ChatCompletions(self.settings.own_models, self.settings.openai_api_key)
