"""Servers that are measured: each in a session of its own, on a core of its own, with what it used of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
READY_SECONDS = 120.0
MEASURED = 0
"""The core of what is measured; everything else runs on the others."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Used:
    """What the processes of a session have used so far."""

    cpu: float
    """Seconds, of the user's and the system's time."""
    memory: float
    """Resident megabytes."""

    def since(self, earlier: Used) -> float:
        """Seconds of processor time from then to now."""
        return self.cpu - earlier.cpu


class Server:
    """A process and all that it started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def used(self) -> Used:
        """By this process and its children, now."""
        found = [_stat(pid) for pid in _of_session(self.process.pid)]
        ticks, pages = (sum(column) for column in zip(*found, strict=True)) if found else (0, 0)
        return Used(cpu=ticks / _TICKS, memory=pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def stop(self) -> None:
        """End it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def begin(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path, *, cores: Sequence[int] = ()
) -> Server:
    """Start it, and do not wait for anything."""
    log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*pinned, *map(str, command)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Server(process, log)


@contextmanager
def running(
    command: Sequence[str | Path],
    url: str,
    environment: Mapping[str, str],
    folder: Path,
    *,
    cores: Sequence[int] = (MEASURED,),
) -> Iterator[Server]:
    """The server, once its `url` answers with whatever status; it ends with the block."""
    server = begin(command, environment, folder, cores=cores)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(url):
            if server.process.poll() is not None or time.monotonic() > deadline:
                said = server.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{' '.join(map(str, command))} did not answer at {url}:\n{said}")
            time.sleep(0.05)
        yield server
    finally:
        server.stop()


def answers(url: str) -> bool:
    """Whether a server answers there, with whatever status."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  loopback
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def others() -> list[int]:
    """The cores that are not measured."""
    return [core for core in sorted(os.sched_getaffinity(0)) if core != MEASURED] or [MEASURED]


def model(port: int, seconds: float = 0.0) -> tuple[list[str], str]:
    """Command and address of the stand-in model."""
    return [sys.executable, "-m", "benchmarks.model", str(port), str(seconds)], f"http://127.0.0.1:{port}/"


def _of_session(leader: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            if int(_fields(pid)[3]) == leader:
                yield pid


def _stat(pid: int) -> tuple[int, int]:
    """Ticks and pages of a process; nothing of one that has ended meanwhile."""
    with suppress(OSError):
        fields = _fields(pid)
        return int(fields[11]) + int(fields[12]), int(fields[21])
    return 0, 0


def _fields(pid: int) -> list[str]:
    """Of /proc/pid/stat, from the third one on (proc(5)): the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
