"""`recado dead-runs`: runs that were set aside because they made no progress."""

from __future__ import annotations

import json

from shared.cli.client import Client, ServerError, checked
from shared.cli.embedded import read_key
from shared.settings import Settings


async def dead_runs(settings: Settings, url: str, action: str, run: str) -> int:
    """`list` them, the newest first, or `show` or `requeue` the one with the id `run`; prints JSON, one a line.

    Raises `ServerError` with what the server says.
    """
    if (action == "list") == bool(run):
        raise ServerError("run: list takes none; show and requeue take one, as list prints its id")
    client = Client(url, read_key(settings))
    try:
        method, tail = {"list": ("GET", ""), "show": ("GET", f"/{run}"), "requeue": ("POST", f"/{run}/requeue")}[action]
        response = await client.request(method, f"/v1/dead-runs{tail}")
        found = [checked(response)] if action != "list" or response.is_error else response.json()
        for each in found:
            print(json.dumps(each, ensure_ascii=False), flush=True)
        return 0
    finally:
        await client.aclose()
