"""Processes as a person or Cloud Run starts them: each in a group of its own, its output in a file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

import uvicorn
from starlette.types import ASGIApp

ROOT = Path(__file__).parents[2]
RECADO = str(Path(sys.executable).with_name("recado"))
READY_SECONDS = 60.0
END_SECONDS = 20.0


class Process:
    """A server at `url`. As a context manager it is ready inside and gone after, with all that it started."""

    alive: ClassVar[list[Process]] = []
    """Those whose block has not ended: a test that fails shows what they printed."""

    def __init__(
        self, command: Sequence[str], port: int, environment: Mapping[str, str], *, folder: Path, name: str = "recado"
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.name = name
        self._command = command
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "PORT": str(port), **environment}
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        self.alive.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.alive.remove(self)
        self.kill()

    @property
    def output(self) -> str:
        """Everything that it has printed, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Return once it answers HTTP, with whatever status."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.name} did not become ready:\n{self.output[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and its children as a machine's death would: without a chance to do anything."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def interrupt(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(END_SECONDS)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2):  # noqa: S310  loopback
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The application's address; it is served by a thread of this process until the end of the block."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
