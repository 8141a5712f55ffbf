"""What the checks of a project share: where it is, how to ask Google's REST interfaces, and what a result is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

Json = dict[str, Any]
Result = Literal["ok", "failed", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    check: str
    result: Result
    values: Json = field(default_factory=dict)

    def line(self) -> str:
        """The row as one JSON object."""
        return json.dumps({"check": self.check, "result": self.result, **self.values}, ensure_ascii=False)


def result_of(good: bool) -> Result:  # noqa: FBT001 its one question
    return "ok" if good else "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A project, real or of the emulators (then their `host:port` are given)."""

    project: str
    urls: dict[str, str]
    http: httpx.AsyncClient
    api_key: str = ""
    web_api_key: str = ""
    firestore_emulator: str = ""
    pubsub_emulator: str = ""
    id_token: Callable[[str], Awaitable[str]] | None = None
    """A token that Google has signed for this audience and an account that is not the push's; empty: there is none."""
    seconds: float = 30.0
    """How long each rate of writes lasts."""

    async def firestore(self, method: str, path: str, body: Json | None = None) -> Json:
        """Firestore's REST interface as an owner; `path` follows `projects/{project}/databases/(default)`."""
        host = self.firestore_emulator
        root = f"http://{host}" if host else "https://firestore.googleapis.com"
        return await self._ask(method, f"{root}/v1/projects/{self.project}/databases/(default){path}", body, host)

    async def pubsub(self, method: str, path: str, body: Json | None = None) -> Json:
        """Pub/Sub's REST interface as an owner; `path` follows `projects/{project}`."""
        host = self.pubsub_emulator
        root = f"http://{host}" if host else "https://pubsub.googleapis.com"
        return await self._ask(method, f"{root}/v1/projects/{self.project}{path}", body, host)

    async def google(self, method: str, address: str, body: Json | None = None) -> Json:
        """Any other of Google's REST interfaces, of the real project."""
        return await self._ask(method, address, body, "")

    async def _ask(self, method: str, address: str, body: Json | None, emulator: str) -> Json:
        token = "owner" if emulator else await asyncio.to_thread(_access_token)
        headers = {"Authorization": f"Bearer {token}", "x-goog-user-project": self.project}
        answer = await self.http.request(method, address, json=body, headers=headers)
        return dict(answer.raise_for_status().json())


def _access_token() -> str:
    import google.auth
    from google.auth.transport.requests import Request

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(Request())  # type: ignore[no-untyped-call]  # the library's
    return str(credentials.token)


async def google_id_token(audience: str) -> str:
    """An ID token of this process's service account; empty when the credentials are a person's, who has none."""
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    try:
        return str(await asyncio.to_thread(id_token.fetch_id_token, Request(), audience))
    except GoogleAuthError:
        return ""
