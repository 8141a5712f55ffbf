"""Processes of one function, in milliseconds: `python -m tests.chaos.nursery <function> <folder>`.

It loads the function as the Functions Framework does and, as gunicorn's master does with `preload`, forks a process
for each line of JSON on its standard input: `{"environment", "chaos", "log"}`; it answers with `{"pid", "port"}`. A
process serves on its port until it is killed, and all of them end with the nursery, which ends with its input.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EMBEDDED = "embedded"
"""In the place of a function: what `recado dev` serves, all of them in one process."""
USED = (
    "google.cloud.firestore",
    "google.cloud.firestore_v1.services.firestore.transports.grpc_asyncio",
    "google.pubsub_v1.services.publisher.transports",
    "grpc.aio",
    "httpx",
    "httpcore",
    "h11",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.lifespan.off",
    "uvicorn.loops.asyncio",
    "shared.bus.pubsub",
    "shared.store.firestore",
    "shared.llm.route",
    "shared.llm.scripted",
    "shared.tools.demo",
    "shared.tools.operators",
    "shared.tools.timers",
    "shared.channels.api",
    "shared.channels.telegram",
    "shared.channels.telegram_update",
    "shared.channels.whatsapp",
    "shared.channels.whatsapp_update",
    "shared.orchestrator.drive",
    "shared.orchestrator.invoke",
    "shared.secrets.keyfile",
    "shared.auth.callback_token",
    "shared.channels.telegram_html",
    "shared.channels.whatsapp_text",
    "shared.files.fsspec",
    "markdown_it.presets",
    "markdown_it.main",
    "anyio._backends._asyncio",
    "anyio.streams.tls",
    "cryptography.hazmat.primitives.ciphers.aead",
    "tests.chaos.parts",
)
_PR_SET_PDEATHSIG = 1


def main(function: str) -> None:
    """Fork until the input ends."""
    app = _load(function)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the system forgets them by itself
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": function}), flush=True)  # noqa: T201  that is how it answers
    for line in sys.stdin:
        order = json.loads(line)
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        pid = os.fork()
        if pid == 0:
            _live(app, order, listener)
        print(json.dumps({"pid": pid, "port": listener.getsockname()[1]}), flush=True)  # noqa: T201  that is how it answers
        listener.close()


def _load(function: str) -> Any:
    """The function's application; None for the embedded server, which makes its own."""
    if function == EMBEDDED:
        import_module("shared.cli.dev")
        import_module("shared.config.publishing")

        _warm()
        return None
    from functions_framework.aio import create_asgi_app

    app: Any = create_asgi_app(function, str(ROOT / f"functions/{function}/main.py"))  # type: ignore[no-untyped-call]
    _warm()
    return app


def _warm() -> None:
    """Import what a process would on its first request, and make nothing: clients do not outlive a fork."""
    for module in USED:
        import_module(module)
    from shared.clock import SystemClock
    from shared.codec import encode
    from shared.domain import Connection, Contact, Entry, ExecutionPlan, ModelReply
    from shared.sessions.document import Run, Session

    now, ana = SystemClock().now(), Contact(id="1")
    encode(Run(number=1, plan="", inputs=(), first_sequence=1, started_at=now))
    encode(
        Entry(
            id="1", kind="message", connection="c", conversation="1", order=1, received_at=now, contact=ana, text="Hi"
        )
    )
    encode(Session(tenant="t", id="0" * 32, connection="c", conversation="1"))
    encode(ExecutionPlan(tenant="t", agent="a", agent_version=1, instructions="", models=()))
    encode(Connection(id="c", tenant="t", channel="telegram", agent="a", plan=""))
    encode(ModelReply(model="m", text=""))


def _live(app: Any, order: dict[str, Any], listener: socket.socket) -> None:
    """One process's life; it does not return."""
    import uvicorn

    from shared import wiring
    from shared.settings import current
    from tests.chaos.parts import Chaos, ChaosParts

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    log = os.open(order["log"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(order["environment"])
    parts = ChaosParts(current(), Chaos(**order["chaos"]))
    with wiring.using(parts):
        if app is None:
            from shared.cli.dev import dev

            listener.close()  # it wants to listen itself, on a port that is its own for all its lives
            os._exit(asyncio.run(dev(parts.settings)))
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", access_log=False)
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
