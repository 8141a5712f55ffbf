"""`recado migrate`: the configuration's schema as this release needs it, and what waits for publishing published."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shared.config.database import migrate as migrate_schema
from shared.config.demo import TENANT, seed
from shared.config.publishing import publish
from shared.errors import RecadoError
from shared.settings import Settings
from shared.wiring import Parts

NO_TOKEN = "0:none"  # noqa: S105 stands for a bot that there is not; a send with it is refused
MAKES_ONE = "https://core.telegram.org/bots#how-do-i-create-a-bot"


async def migrate(settings: Settings, *, demo: bool, telegram_token_file: str) -> int:
    """Safe to repeat, and while the release before it is serving.

    With `demo` the demo tenant is made as well, or brought up to date, and a new operator's API key of it is printed:
    nothing else goes to standard output. Its bot has the token in `telegram_token_file`, if one is named.
    """
    if telegram_token_file and not demo:
        raise RecadoError("--telegram-token-file: the bot is the demo's; give --demo as well")
    token = await asyncio.to_thread(_read, telegram_token_file) if telegram_token_file else NO_TOKEN
    here = Parts(settings)
    try:
        await asyncio.to_thread(migrate_schema, settings.config_url)
        if demo:
            await seed(here.repository, here.box, telegram_token=token, model=settings.model, telegram_api="")
            print(await here.repository.create_api_key(TENANT, "operator"))
        await publish(here.repository, here.store)
        return 0
    finally:
        await here.aclose()


def _read(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise RecadoError(f"--telegram-token-file: {path} cannot be read ({error.strerror})") from None
    if ":" not in token:
        raise RecadoError(f"--telegram-token-file: {path} has no bot's token in it; {MAKES_ONE}")
    return token
