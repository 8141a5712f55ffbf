"""`recado dev`: everything on one port of this machine."""

from __future__ import annotations

import asyncio
import signal
import socket

import uvicorn

from shared.cli.door import Door
from shared.cli.embedded import Dispatcher, prepare, ticking
from shared.cli.streams import Streams
from shared.errors import RecadoError
from shared.observability import configure
from shared.settings import Settings
from shared.wiring import parts

HOST = "127.0.0.1"


async def dev(settings: Settings) -> int:
    """Serve until Ctrl-C or SIGTERM; requests that are being answered may finish."""
    configure(settings)
    here = parts()
    url = f"http://{HOST}:{settings.port}"
    with listen(settings.port) as listener:
        api_key = await prepare(here, url)
        door = Door(Dispatcher(), here, api_key)
        streams = Streams(door)
        config = uvicorn.Config(streams, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5)
        server = _Server(config, streams)
        print(_welcome(url, door.one_time_key, settings.model), flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it has ended
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)
        async with ticking(here):
            await server.serve(sockets=[listener])
    await here.aclose()
    return 0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.end()
        await super().shutdown(sockets)


def listen(port: int) -> socket.socket:
    """A socket listening on that port of this machine, any free one for 0. Raises `RecadoError` when it is in use."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # two may bind, only one listens
    except OSError as error:
        listener.close()
        raise RecadoError(f"PORT: {HOST}:{port} cannot be used ({error.strerror}); set PORT to a free one") from None
    return listener


def _welcome(url: str, key: str, model: str) -> str:
    return f"""
Recado is ready at {url}  (model: {model})

  .venv/bin/recado send telegram "Where is order 1042?"    as a contact on Telegram would
  .venv/bin/recado send whatsapp "Where is order 1042?"    as a contact on WhatsApp would
  .venv/bin/recado send telegram "Please refund order 1042"   then: .venv/bin/recado send telegram --tap approve
  .venv/bin/recado chat "Hello" --url {url}    as a developer would

Sessions: {url}/?key={key}    (opens once; Ctrl-C ends the server)
"""
