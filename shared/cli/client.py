"""A running server as the command line sees it: its events, its sessions, its invoke."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import httpx

from shared.domain import JsonObject
from shared.errors import RecadoError


class ServerError(RecadoError):
    """The server did not do what was asked; the message has its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An event of a session."""

    sequence: int
    kind: str
    data: JsonObject


class Client:
    """Talks to one server as the operator of the demo tenant."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=httpx.Timeout(330.0, connect=5.0)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(self, method: str, path: str, **options: object) -> httpx.Response:
        """The response, whatever its status. Raises `ServerError` when no server answers."""
        try:
            return await self._http.request(method, path, **options)  # type: ignore[arg-type]  # httpx's own keywords
        except httpx.TransportError as error:
            raise ServerError(f"no server answers at {self.url} ({type(error).__name__}): make dev") from None

    async def get(self, path: str) -> JsonObject | None:
        """The JSON there, or None when there is no such thing."""
        response = await self.request("GET", path)
        if response.status_code == 404:
            return None
        return checked(response)

    async def events(self, session: str, after: int) -> AsyncGenerator[Seen]:
        """The session's events later than `after`, as they happen; waits for the session to come into being."""
        while await self.get(f"/v1/sessions/{session}") is None:  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.05)
        headers = {"Last-Event-ID": str(after)}
        async with self._http.stream("GET", f"/v1/sessions/{session}/events", headers=headers) as response:
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    fields[name] = value
                elif not line:
                    if "id" in fields:  # partial text has none
                        yield Seen(sequence=int(fields["id"]), kind=fields["event"], data=json.loads(fields["data"]))
                    fields = {}

    async def sequence(self, session: str) -> int:
        """Number of the session's last event; 0 for one that does not exist yet."""
        found = await self.get(f"/v1/sessions/{session}")
        return int(found["sequence"]) if found is not None else 0


def checked(response: httpx.Response) -> JsonObject:
    """The response's JSON object. Raises `ServerError` with the problem's detail for a status of 400 and more."""
    body = response.json() if "json" in response.headers.get("content-type", "") else {"detail": response.text}
    if response.is_error:
        raise ServerError(f"{response.status_code} {body.get('title', '')}: {body.get('detail', '')}")
    return dict(body)


async def show(client: Client, session: str, after: int, *, as_json: bool) -> int:
    """Print the session's events later than `after` until a run has its reply or waits; the number of the last one."""
    async with aclosing(client.events(session, after)) as events:
        async for event in events:
            if as_json:
                body = {"id": event.sequence, "event": event.kind, **event.data}
                print(json.dumps(body, ensure_ascii=False), flush=True)
            elif event.kind != "message":
                print(_line(event), flush=True)
            if event.kind in ("text", "wait"):
                return event.sequence
    raise ServerError(f"session {session}: the server ended the events")


def _line(event: Seen) -> str:
    data = event.data
    if event.kind == "step":
        return f"  · {data['kind']} {data['name']} ({data['seconds']:.2f} s)"
    if event.kind == "wait" and data["kind"] != "approval":
        return f"  ? {data['tool']}: the run waits, {data['kind']}, until {data['until']}"
    if event.kind == "wait":
        arguments = ", ".join(f"{name}: {value}" for name, value in data["arguments"].items())
        return f"  ? May {data['tool']} ({arguments}) be called?"
    return f"  {data['text']}"
