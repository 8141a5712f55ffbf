"""What only a real project can show, as one JSON object a line: `{"check": ..., "result": "ok", ...}`.

    .venv/bin/python -m scripts.smoke_gcp --project my-project --urls urls.json [--only conversation ...]

`--urls` is a file with what `terraform output -json urls` prints. The operator's API key is in `RECADO_API_KEY`, the
credentials are Google's application default ones. It takes about ten minutes, costs a few cents, and leaves nothing
behind but the documents that prove the TTL. 1 when a check failed.

`not measured` is what the emulators, or a missing option, cannot show; it is never reported as `ok`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from scripts import smoke_firestore, smoke_functions, smoke_pubsub
from scripts.smoke import Row, Target, google_id_token

Check = Callable[[Target], Awaitable[list[Row]]]

CHECKS: dict[str, Check] = {
    "conversation": smoke_functions.conversation,
    "tokens": smoke_functions.tokens,
    "health": smoke_functions.health,
    "backoff": smoke_pubsub.backoff,
    "ttl": smoke_firestore.ttl,
    "rules": smoke_firestore.rules,
    "writes": smoke_firestore.writes,
}


async def run(target: Target, names: Sequence[str]) -> int:
    """Print the rows of these checks as they come; 1 when one failed. A check that breaks off has failed."""
    failed = False
    for name in names:
        try:
            rows = await CHECKS[name](target)
        except (httpx.HTTPError, OSError, KeyError, ValueError) as error:
            rows = [Row(check=name, result="failed", values={"reason": f"{type(error).__name__}: {error}"})]
        for row in rows:
            failed = failed or row.result == "failed"
            print(row.line(), flush=True)
    return int(failed)


async def _main(options: argparse.Namespace, urls: dict[str, str]) -> int:
    async with httpx.AsyncClient(timeout=60) as http:
        target = Target(
            project=options.project,
            urls=urls,
            http=http,
            api_key=os.environ.get("RECADO_API_KEY", ""),
            web_api_key=options.web_api_key,
            id_token=google_id_token,
            seconds=options.seconds,
        )
        return await run(target, options.only or list(CHECKS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="smoke_gcp", description="Tries a deployed Recado on its real project")
    parser.add_argument("--project", required=True)
    parser.add_argument("--urls", required=True, help="file with the functions' addresses as JSON")
    parser.add_argument("--only", action="append", choices=list(CHECKS), help="this check only; may be repeated")
    parser.add_argument("--web-api-key", default="", help="the web app's public apiKey: with it the rules are tried")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each rate of writes lasts (default: 30)")
    return parser


if __name__ == "__main__":
    arguments = _parser().parse_args()
    addresses = json.loads(Path(arguments.urls).read_text(encoding="utf-8"))
    sys.exit(asyncio.run(_main(arguments, addresses)))
