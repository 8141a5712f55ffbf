"""What every test shares: a clean environment, no way out of the machine, and the real engines on request."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NoReturn, TypeVar

import pytest

from tests import engines

_ENGINE = "needs the "
"""How the reason of a left-out test begins: `needs the <engine> (not found: <what was looked for>)`."""

_KEYS = ("OPENAI_", "GEMINI_", "GOOGLE_", "ANTHROPIC_", "RECADO_", "CLOUDSDK_CORE_PROJECT", "K_SERVICE", "DATABASE_URL")
_outside: list[str] = []
Started = TypeVar("Started", bound=engines.Engine)


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(address := arguments[1], tuple) and not _loopback(str(address[0])):
        _outside.append(str(address[0]))
        raise OSError(f"a test may connect to loopback only, not to {address[0]}")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def pytest_configure() -> None:
    """Nothing of the developer's own environment reaches a test, and no key of theirs can be spent."""
    for variable in list(os.environ):
        if variable.startswith(_KEYS) or variable.upper().endswith("_PROXY"):
            del os.environ[variable]
    sys.addaudithook(_guard)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is told to end ends the engines as well


@pytest.fixture(autouse=True)
def _only_loopback() -> Iterator[None]:
    """Fails a test that tried to leave the machine, also when the code under test swallowed the error."""
    yield
    tried = list(_outside)
    _outside.clear()
    assert not tried, f"tried to connect to {', '.join(tried)}"


@pytest.fixture(scope="session")
def firestore_host() -> Iterator[str]:
    """`host:port` of a Firestore emulator. Tests share it: each takes a project of its own."""
    emulator = started(engines.FirestoreEmulator())
    yield emulator.host
    emulator.stop()


@pytest.fixture(scope="session")
def pubsub_host() -> Iterator[str]:
    """`host:port` of a Pub/Sub emulator. Tests share it: each takes a project of its own."""
    emulator = started(engines.PubSubEmulator())
    yield emulator.host
    emulator.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[engines.Postgres]:
    """A Postgres cluster for the whole run."""
    cluster = started(engines.Postgres())
    yield cluster
    cluster.stop()


@pytest.fixture
def postgres_url(postgres: engines.Postgres) -> Iterator[str]:
    """`postgresql+pg8000://…` of a database that is empty for each test (about 0.1 s) and dropped after it."""
    url = postgres.database()
    yield url
    postgres.drop(url)


def started(engine: Started) -> Started:
    try:
        return engine.start()
    except engines.Missing as missing:
        left_out(engine.name, str(missing))


def left_out(engine: str, looked_for: str) -> NoReturn:
    """Ends a test that cannot run without that engine: a failure with `CI` set, else left out and counted."""
    reason = f"{_ENGINE}{engine} (not found: {looked_for})"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all that was left out: a short run must not look like a whole one."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    missing = [f"{tests} tests {reason}" for reason, tests in reasons.items() if reason.startswith(_ENGINE)]
    if missing:
        terminalreporter.write_line(f"left out: {'; '.join(missing).replace(f'tests {_ENGINE}', 'tests need the ')}")
