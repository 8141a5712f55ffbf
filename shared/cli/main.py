"""`recado`: the command line. Each subcommand is loaded only when it is used."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from shared.errors import RecadoError
from shared.settings import Settings, current

URL = "http://127.0.0.1:8080"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 when it did what was asked, 1 when not, 2 for arguments that make no sense."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except RecadoError as error:
        print(f"recado: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


async def _run(options: argparse.Namespace) -> int:
    settings = current()
    if options.command == "dev":
        from shared.cli.dev import dev

        return await dev(settings)
    if options.command == "chat":
        from shared.cli.chat import chat

        return await chat(settings, options.text, session=options.session, as_json=options.json, url=options.url)
    if options.command == "migrate":
        from shared.cli.migrate import migrate

        return await migrate(settings, demo=options.demo, telegram_token_file=options.telegram_token_file)
    if options.command == "webhook":
        from shared.cli.webhook import webhook

        return await webhook(settings, options.connection, options.url)
    if options.command == "user":
        from shared.cli.user import user

        return await user(settings, options.action, options.uid, tenant=options.tenant)
    return await _ask_server(settings, options)


async def _ask_server(settings: Settings, options: argparse.Namespace) -> int:
    url = options.url or f"http://127.0.0.1:{settings.port}"
    if options.command == "dead-runs":
        from shared.cli.dead_runs import dead_runs

        return await dead_runs(settings, url, options.action, options.run)
    from shared.cli.send import Telegram, WhatsApp, send

    channel = (
        Telegram(settings, options.connection, options.chat)
        if options.channel == "telegram"
        else WhatsApp(options.app, options.contact)
    )
    return await send(settings, url, channel, options.text, tap=options.tap, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recado", description="Agents that answer people, on your own machine first")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dev", help="serve everything on one port, on this machine only (PORT, default 8080)")
    chat = commands.add_parser("chat", help="say one thing to the demo agent and see the steps and the answer")
    chat.add_argument("text")
    chat.add_argument("--session", default="chat", help="name of the conversation to go on with (default: chat)")
    chat.add_argument("--url", default="", help=f"a running server, such as {URL}; default: the embedded stack")
    chat.add_argument("--json", action="store_true", help="print one JSON object per line")
    send = commands.add_parser("send", help="post an update to the running server as a channel would")
    channels = send.add_subparsers(dest="channel", required=True)
    telegram = channels.add_parser("telegram", help="a Telegram update, secret and all")
    telegram.add_argument("--chat", type=int, default=1001, help="the contact's chat (default: 1001)")
    telegram.add_argument("--connection", default="demo-telegram")
    whatsapp = channels.add_parser("whatsapp", help="what Meta posts, signed, and then the statuses of the reply")
    whatsapp.add_argument("--contact", default="16505551234", help="phone number or BSUID (default: 16505551234)")
    whatsapp.add_argument("--app", default="demo-app")
    for channel in (telegram, whatsapp):
        channel.add_argument("text", nargs="?", default="", help="what the contact writes")
        channel.add_argument("--tap", choices=["approve", "deny"], default="", help="tap a button instead of writing")
        channel.add_argument("--url", default="", help=f"the running server (default: {URL}, or PORT)")
        channel.add_argument("--json", action="store_true", help="print one JSON object per line")
    migrate = commands.add_parser("migrate", help="bring the configuration's database up to date, and publish it")
    migrate.add_argument("--demo", action="store_true", help="make the demo tenant too, and print an API key of it")
    migrate.add_argument("--telegram-token-file", default="", help="a file with the token of the demo's bot")
    webhook = commands.add_parser("webhook", help="tell Telegram where a connection's updates go")
    webhook.add_argument("url", help="address of ingest, such as https://ingest-123456789012.europe-west1.run.app")
    webhook.add_argument("--connection", default="demo-telegram")
    user = commands.add_parser("user", help="say who may watch a tenant's sessions in a browser")
    user.add_argument("action", choices=["add", "remove"])
    user.add_argument("uid", help="the user's Firebase uid")
    user.add_argument("--tenant", required=True)
    dead_runs = commands.add_parser("dead-runs", help="runs that the running server set aside, of its demo tenant")
    dead_runs.add_argument("action", choices=["list", "show", "requeue"])
    dead_runs.add_argument("run", nargs="?", default="", help="which one: an id that list prints")
    dead_runs.add_argument("--url", default="", help=f"the running server (default: {URL}, or PORT)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
