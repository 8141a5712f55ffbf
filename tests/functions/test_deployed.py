"""What a person runs once for a project: `recado migrate --demo`, then `recado webhook`."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.auth.api_key import authenticate
from shared.channels.telegram import secret_for
from shared.cli.migrate import migrate
from shared.cli.simulators.telegram import TelegramSimulator
from shared.cli.user import user
from shared.cli.webhook import webhook
from shared.config.demo import CONNECTION, TENANT
from shared.domain import JsonObject
from shared.errors import NotFound, RecadoError
from shared.published import member_path
from shared.settings import Settings
from shared.wiring import Parts
from tests.servers.loopback import served

BOT_TOKEN = "1234567890:the-token-of-a-bot-that-is-somebodys-0"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{BOT_TOKEN}\n")
    return str(path)


async def test_a_database_is_migrated_and_nothing_is_printed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert await migrate(settings, demo=False, telegram_token_file="") == 0
    assert capsys.readouterr().out == ""


async def test_the_demo_is_published_and_only_its_key_is_printed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = []
    for _ in range(2):
        await migrate(settings, demo=True, telegram_token_file="")
        keys.append(capsys.readouterr().out.strip())
    here = Parts(settings)
    for key in keys:
        principal = await authenticate(f"Bearer {key}", here.published)
        assert (principal.tenant, principal.role) == (TENANT, "operator")
    await here.aclose()


async def test_a_user_is_added_and_removed(settings: Settings) -> None:
    await migrate(settings, demo=True, telegram_token_file="")
    here = Parts(settings)
    for action, there in (("add", True), ("remove", False)):
        assert await user(settings, action, "olga", tenant=TENANT) == 0
        assert (await here.store.get(member_path(TENANT, "olga")) is not None) is there
    await here.aclose()


async def test_telegram_is_told_the_address_and_the_secret(
    settings: Settings, token_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[JsonObject] = []

    async def set_webhook(request: Request) -> JSONResponse:
        said.append(await request.json())
        return JSONResponse({"ok": True, "result": True})

    route = Route(f"/bot{BOT_TOKEN}/setWebhook", set_webhook, methods=["POST"])
    async with served(Starlette(routes=[route])) as telegram:
        settings = Settings(home=settings.home, telegram_api=telegram)
        await migrate(settings, demo=True, telegram_token_file=token_file)
        capsys.readouterr()
        assert await webhook(settings, CONNECTION, "https://ingest.example/") == 0
    here = Parts(settings)
    assert said == [
        {
            "url": f"https://ingest.example/telegram/{CONNECTION}",
            "secret_token": secret_for(here.box, CONNECTION),
            "allowed_updates": ["message", "callback_query"],
        }
    ]
    assert capsys.readouterr().out == f"Telegram posts to https://ingest.example/telegram/{CONNECTION}\n"


async def test_a_bot_that_telegram_does_not_know_is_refused_without_its_token(
    settings: Settings, token_file: str
) -> None:
    async with served(TelegramSimulator("1234567890:another-token-altogether-00000000000").app) as telegram:
        settings = Settings(home=settings.home, telegram_api=telegram)
        await migrate(settings, demo=True, telegram_token_file=token_file)
        with pytest.raises(RecadoError, match="Telegram refused the webhook") as refused:
            await webhook(settings, CONNECTION, "https://ingest.example")
    assert BOT_TOKEN not in str(refused.value)


async def test_telegram_that_cannot_be_reached_is_said_without_the_token(settings: Settings, token_file: str) -> None:
    settings = Settings(home=settings.home, telegram_api="http://127.0.0.1:1")
    await migrate(settings, demo=True, telegram_token_file=token_file)
    with pytest.raises(RecadoError, match="did not answer: ConnectError"):
        await webhook(settings, CONNECTION, "https://ingest.example")


async def test_a_connection_without_a_webhook_is_refused(settings: Settings) -> None:
    await migrate(settings, demo=True, telegram_token_file="")
    with pytest.raises(RecadoError, match="not a Telegram connection"):
        await webhook(settings, "demo-web", "https://ingest.example")
    with pytest.raises(NotFound):
        await webhook(settings, "no-such", "https://ingest.example")


async def test_a_file_without_a_token_is_refused_before_anything_is_done(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RecadoError, match="cannot be read"):
        await migrate(settings, demo=True, telegram_token_file=str(tmp_path / "none"))
    (tmp_path / "empty").write_text("")
    with pytest.raises(RecadoError, match="no bot's token"):
        await migrate(settings, demo=True, telegram_token_file=str(tmp_path / "empty"))
    with pytest.raises(RecadoError, match="give --demo"):
        await migrate(settings, demo=False, telegram_token_file=str(tmp_path / "empty"))
    assert not (tmp_path / "home").exists()
