"""The real engines that tests run against: the Firestore and Pub/Sub emulators, and Postgres.

    with FirestoreEmulator() as firestore:
        ...  # firestore.host

Each listens on a free loopback port, is ready when `start` returns, and is ended by its own process id. `start` raises
`Missing` when the machine does not have the engine; an emulator that already runs (`FIRESTORE_EMULATOR_HOST`,
`PUBSUB_EMULATOR_HOST`) is used as it is and left running.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

READY_SECONDS = 60
STOP_SECONDS = 10


class Missing(Exception):
    """This machine does not have the engine; the message says what was looked for."""


class Engine(ABC):
    """One server process in a process group of its own, with a scratch folder for its files and log."""

    name: str
    port: int = 0

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()

    @abstractmethod
    def start(self) -> Self: ...

    def stop(self) -> None:
        """End the process and everything that it started; nothing happens when there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        if process.poll() is None:
            self._ask_to_end(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):  # the group is gone when all went well
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()

    @abstractmethod
    def _ready(self) -> bool: ...

    def _launch(self, *command: str | Path, user: str | None = None) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, user=user, start_new_session=True
            )
        atexit.register(self.stop)
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"the {self.name} did not become ready:\n{tail}")
            time.sleep(0.05)


class _Emulator(Engine):
    variable: str
    component: str
    patterns: tuple[str, ...]
    """Where the jar is, below the SDK's folder or below firebase-tools' cache."""

    def __init__(self) -> None:
        super().__init__()
        self.host = os.environ.get(f"{self.variable}_HOST", "")

    def start(self) -> Self:
        if not self.host:
            jar, java = self._jar(), _java()
            if not (jar and java):
                raise Missing(f"Google Cloud SDK component {self.component}, or Java")
            self.port = free_port()
            self._folder = Path(tempfile.mkdtemp(prefix="engine-"))
            self._launch(java, "-XX:+UseSerialGC", "-Duser.language=en", *self._arguments(jar))
            self.host = f"127.0.0.1:{self.port}"
        return self

    def stop(self) -> None:
        if self._process:
            self.host = ""
        super().stop()

    def _jar(self) -> Path | None:
        if named := os.environ.get(f"{self.variable}_JAR"):
            return Path(named)
        roots = (_sdk(), Path.home() / ".cache/firebase/emulators")
        found = (jar for root in roots if root for pattern in self.patterns for jar in sorted(root.glob(pattern)))
        return next(found, None)

    @abstractmethod
    def _arguments(self, jar: Path) -> tuple[str | Path, ...]: ...

    def _ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


class FirestoreEmulator(_Emulator):
    """Firestore without rules: everything is open. Projects and databases are made by naming them."""

    name = "Firestore emulator"
    variable = "FIRESTORE_EMULATOR"
    component = "cloud-firestore-emulator"
    patterns = ("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar", "cloud-firestore-emulator-*.jar")

    def _arguments(self, jar: Path) -> tuple[str | Path, ...]:
        main = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
        return ("-cp", jar, main, "start", "--host=127.0.0.1", f"--port={self.port}")

    def _ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/shutdown", data=b"")
        with suppress(OSError), urllib.request.urlopen(request, timeout=STOP_SECONDS):  # noqa: S310  loopback
            return
        process.terminate()


class PubSubEmulator(_Emulator):
    """Pub/Sub with real pushes to loopback; two pushes of a subscription at a time, a nack repeats after a second."""

    name = "Pub/Sub emulator"
    variable = "PUBSUB_EMULATOR"
    component = "pubsub-emulator"
    patterns = (
        "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar",
        "pubsub-emulator-*/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar",
    )

    def _arguments(self, jar: Path) -> tuple[str | Path, ...]:
        # without retryPost=false the JDK itself repeats a push whose connection broke, three times within 10 ms
        return ("-Dsun.net.http.retryPost=false", "-jar", jar, "--host=127.0.0.1", f"--port={self.port}")


class Postgres(Engine):
    """A new cluster that forgets everything at its end; `database` makes an empty database in it."""

    name = "Postgres"
    _role = "recado"

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(16)
        self._binaries = Path()

    def start(self) -> Self:
        self._binaries, user = _postgres_binaries(), _unprivileged()
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="engine-"))
        password = self._folder / "password"
        password.write_text(self._password)
        if user:
            for path in (self._folder, password):
                shutil.chown(path, user)
        data = self._folder / "data"
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
        command: list[str | Path] = [self._binaries / "initdb", "-D", data, "-U", self._role, "--pwfile", password]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, cwd=self._folder, user=user)
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        self._launch(
            self._binaries / "postgres", "-D", data, *(part for text in settings for part in ("-c", text)), user=user
        )
        return self

    def database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        name = f"test_{secrets.token_hex(6)}"
        self._client("createdb", name)
        return f"postgresql+pg8000://{self._role}:{self._password}@127.0.0.1:{self.port}/{name}"

    def drop(self, url: str) -> None:
        """Remove a database of `database`, and close who is still connected to it."""
        self._client("dropdb", "--force", url.rpartition("/")[2])

    def _client(self, program: str, *arguments: str) -> None:
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", self._role)
        subprocess.run(
            (self._binaries / program, *where, *arguments), check=True, env=os.environ | {"PGPASSWORD": self._password}
        )

    def _ready(self) -> bool:
        command = (self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run(command, check=False).returncode == 0

    def _ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)  # "fast": do not wait for clients to leave


def make_topic(pubsub_host: str, project: str, topic: str) -> None:
    """Make it; what is published goes nowhere yet."""
    _ask(f"http://{pubsub_host}/v1/projects/{project}/topics/{topic}", "PUT", {})


def subscribe(pubsub_host: str, project: str, topic: str, endpoint: str) -> None:
    """Make the topic and an ordered subscription, `{topic}-push`, that pushes to the endpoint until `unsubscribe`."""
    make_topic(pubsub_host, project, topic)
    push(pubsub_host, project, topic, endpoint)


def push(pubsub_host: str, project: str, topic: str, endpoint: str) -> None:
    """As `subscribe`, of a topic that is there."""
    subscription = {
        "topic": f"projects/{project}/topics/{topic}",
        "pushConfig": {"pushEndpoint": endpoint},
        "enableMessageOrdering": True,
        "ackDeadlineSeconds": 600,
    }
    _ask(f"http://{pubsub_host}/v1/projects/{project}/subscriptions/{topic}-push", "PUT", subscription)


def unsubscribe(pubsub_host: str, project: str, topic: str) -> None:
    """End the pushes of `subscribe`; what was not acknowledged is lost."""
    _ask(f"http://{pubsub_host}/v1/projects/{project}/subscriptions/{topic}-push", "DELETE")


def _ask(url: str, method: str, body: dict[str, object] | None = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=READY_SECONDS):  # noqa: S310  an emulator on loopback
        return


def free_port() -> int:
    """A loopback TCP port that nobody listens on right now.

    Below the range that the system gives to outgoing connections: a JVM takes seconds to bind its port, and in that
    time a connection, even the one that asks whether it is ready, could get the same number.
    """
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
            probe.bind(("127.0.0.1", port))
            return port


def _java() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    return Path(found) if found else None


@cache
def _sdk() -> Path | None:
    if not shutil.which("gcloud"):
        return None
    command = ["gcloud", "info", "--format=value(installation.sdk_root)"]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout.strip()
    return Path(said) if said else None


def _postgres_binaries() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    for folder in [*folders, *reversed(versions)]:
        if all((folder / program).exists() for program in ("initdb", "postgres", "createdb", "dropdb", "pg_isready")):
            return folder
    raise Missing("initdb and postgres, on PATH or in /usr/lib/postgresql/*/bin")


def _unprivileged() -> str | None:
    """Postgres refuses to run as root: then it runs as the user that its package made."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise Missing("a user named postgres: root may not run it") from None


def unsigned_token(project: str, uid: str) -> str:
    """An ID token as the Auth emulator gives to that user; nothing but emulators takes it."""
    issuer = f"https://securetoken.google.com/{project}"
    claims = {"sub": uid, "user_id": uid, "aud": project, "iss": issuer, "iat": 0, "exp": 4_102_444_800}
    header, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none", "typ": "JWT"}, claims)
    )
    return f"{header}.{body}."
