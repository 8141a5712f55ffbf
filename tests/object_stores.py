"""Servers that speak Google Cloud Storage and S3, each a process of its own that forgets everything at its end.

    with StorageEmulator() as storage:
        url = storage.bucket()  # gs://…, at storage.host

Both come with the development requirements.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.engines import Engine, free_port

_MORE_THAN_FIVE_MAY_WAIT = """
import http.server
from gcp_storage_emulator.__main__ import main
http.server.HTTPServer.request_queue_size = 128
main()
"""
"""Linux forgets the connections for which there is no room, and their clients wait for seconds."""


class _Server(Engine):
    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.port = port or free_port()
        self.host = f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="engine-"))
        self._launch(sys.executable, *self._arguments())
        return self

    def _arguments(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{self.host}/", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def _ask(self, method: str, path: str, body: bytes) -> None:
        url, headers = f"http://{self.host}{path}", {"content-type": "application/json"}
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return


class StorageEmulator(_Server):
    """Google Cloud Storage, one request at a time."""

    name = "Cloud Storage emulator"

    def bucket(self) -> str:
        """URL of a new, empty bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        self._ask("POST", "/storage/v1/b?project=tests", json.dumps({"name": name}).encode())
        return f"gs://{name}"

    def _arguments(self) -> tuple[str, ...]:
        return ("-c", _MORE_THAN_FIVE_MAY_WAIT, "start", "--host=127.0.0.1", f"--port={self.port}", "-M", "--quiet")


class S3Server(_Server):
    """S3, for whoever has the variables of `environment`."""

    name = "S3 server"

    @property
    def environment(self) -> dict[str, str]:
        """What an AWS client needs to find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.host}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
        }

    def bucket(self) -> str:
        """URL of a new, empty bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        self._ask("PUT", f"/{name}", b"")
        return f"s3://{name}"

    def _arguments(self) -> tuple[str, ...]:
        return ("-m", "moto.server", "--host=127.0.0.1", f"--port={self.port}")
