"""The command line as a person runs it: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from tests.engines import free_port
from tests.functions.conftest import Stack

RECADO = str(Path(sys.executable).with_name("recado"))
PATIENCE_SECONDS = 60


class Done:
    def __init__(self, code: int | None, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.err = err.decode()


async def recado(home: Path, *arguments: str, stdin: int = DEVNULL, **environment: str) -> Done:
    """Run it to its end, in an empty folder: nothing but `home` may matter."""
    folder = home.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        RECADO,
        *arguments,
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
        cwd=folder,
        env=os.environ | {"RECADO_HOME": str(home), "PORT": str(free_port())} | environment,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert list(folder.iterdir()) == []
    return Done(process.returncode, out, err)


async def test_chat_prints_the_steps_then_the_answer_and_keeps_its_home_to_itself(tmp_path: Path) -> None:
    done = await recado(tmp_path / "home", "chat", "Where is order 1042?")

    assert done.code == 0, done.err
    assert [re.sub(r"\(\d+\.\d\d s\)", "(t)", line) for line in done.out.splitlines()] == [
        "  · model scripted/demo (t)",
        "  · tool lookup_order (t)",
        "  · model scripted/demo (t)",
        "  Order 1042 is shipped with Correos and should arrive on 2026-11-24.",
    ]
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    for name in ("platform.key", "api-key", "sessions.db"):
        assert (tmp_path / "home" / name).stat().st_mode & 0o077 == 0


async def test_chat_goes_on_with_a_conversation_and_prints_each_event_as_json(tmp_path: Path) -> None:
    await recado(tmp_path / "home", "chat", "Hello", "--session", "s")
    done = await recado(tmp_path / "home", "chat", "Hello again", "--session", "s", "--json")
    events = [json.loads(line) for line in done.out.splitlines()]

    assert done.code == 0, done.err
    assert [(event["id"], event["event"], event["run"]) for event in events] == [
        (4, "message", 2),
        (5, "step", 2),
        (6, "text", 2),
    ]


async def test_chat_without_a_terminal_says_how_to_approve_and_says_it_again(tmp_path: Path) -> None:
    done = await recado(tmp_path / "home", "chat", "Please refund order 1042", PORT="9123")
    again = await recado(tmp_path / "home", "chat", "Hello?", "--json", PORT="9123")

    assert (done.code, again.code) == (1, 1)
    assert done.out.splitlines()[-1] == "  ? May refund_order (order_id: 1042) be called?"
    assert [json.loads(line)["event"] for line in again.out.splitlines()] == ["wait"]
    for said in (done.err, again.err):
        assert "start `recado dev`, then: curl" in said
        assert "http://127.0.0.1:9123/v1/callbacks/demo." in said


@pytest.mark.parametrize(("typed", "answer"), [("y", "Order 1042 is refunded"), ("", "I may not do that")])
async def test_chat_at_a_terminal_asks_for_the_approval(tmp_path: Path, typed: str, answer: str) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{typed}\n".encode())
        done = await recado(tmp_path / "home", "chat", "Please refund order 1042", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].strip().startswith(answer)


async def test_chat_with_a_running_server_names_an_address_that_approves(stack: Stack, server: str) -> None:
    done = await recado(stack.home, "chat", "Please refund order 1042", "--url", server)
    path = re.search(rf"{server}(/v1/callbacks/\S+)", done.err)

    assert done.code == 1
    assert path is not None, done.err
    assert (await stack.http.post(path[1], json={"approved": True})).status_code == 202
    await stack.idle()
    assert len(stack.refunded) == 1


async def test_send_posts_an_update_and_prints_what_the_contact_sees(stack: Stack, server: str) -> None:
    done = await recado(stack.home, "send", "telegram", "Where is order 1042?", "--url", server)
    as_json = await recado(stack.home, "send", "telegram", "Please refund order 1042", "--json", "--url", server)
    tapped = await recado(stack.home, "send", "telegram", "--tap", "approve", "--url", server)

    assert (done.code, as_json.code, tapped.code) == (0, 0, 0), done.err + as_json.err + tapped.err
    assert done.out == "Order 1042 is shipped with Correos and should arrive on 2026-11-24.\n"
    assert [button["text"] for button in json.loads(as_json.out)["buttons"][0]] == ["Approve", "Deny"]
    assert tapped.out.splitlines()[-1] == "Order 1042 is refunded: 49.90 EUR is on its way back to you."
    assert len(stack.refunded) == 1


async def test_send_whatsapp_posts_what_meta_would_and_prints_what_the_contact_sees(stack: Stack, server: str) -> None:
    done = await recado(stack.home, "send", "whatsapp", "Where is order 1042?", "--url", server)
    as_json = await recado(stack.home, "send", "whatsapp", "Please refund order 1042", "--json", "--url", server)
    tapped = await recado(stack.home, "send", "whatsapp", "--tap", "approve", "--url", server)

    assert (done.code, as_json.code, tapped.code) == (0, 0, 0), done.err + as_json.err + tapped.err
    assert done.out == "Order 1042 is shipped with Correos and should arrive on 2026-11-24.\n"
    assert [button["title"] for button in json.loads(as_json.out)["buttons"]] == ["Approve", "Deny"]
    assert tapped.out.splitlines()[-1] == "Order 1042 is refunded: 49.90 EUR is on its way back to you."
    assert len(stack.refunded) == 1
    assert stack.dispatcher.whatsapp.make_statuses() == []  # they were posted


@pytest.mark.parametrize("arguments", [("send", "telegram", "Hello"), ("chat", "Hello", "--url", "http://127.0.0.1:1")])
async def test_without_a_server_one_line_says_so(stack: Stack, arguments: tuple[str, ...]) -> None:
    done = await recado(stack.home, *arguments)

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"recado: no server answers at http://127\.0\.0\.1:\d+ .*\n", done.err)


async def test_without_a_home_one_line_says_what_to_do_first(tmp_path: Path) -> None:
    done = await recado(tmp_path / "home", "send", "telegram", "Hello")

    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"recado: RECADO_HOME: .* has no API key yet; start the server by: make dev\n", done.err)


@pytest.mark.parametrize("arguments", [("send", "telegram"), ("send", "telegram", "Hello", "--tap", "approve")])
async def test_send_takes_a_text_or_a_tap(stack: Stack, arguments: tuple[str, ...]) -> None:
    done = await recado(stack.home, *arguments)
    assert (done.code, done.out, done.err.startswith("recado: text: give ")) == (1, "", True)


async def test_send_without_a_button_to_tap_says_how_to_get_one(stack: Stack, server: str) -> None:
    done = await recado(stack.home, "send", "telegram", "--tap", "approve", "--url", server)
    assert (done.code, done.err) == (1, "recado: --tap: no message in chat 1001 has a button; ask for a refund first\n")


async def test_send_to_an_unknown_connection_passes_the_servers_answer_on(stack: Stack, server: str) -> None:
    done = await recado(stack.home, "send", "telegram", "Hello", "--connection", "nobody", "--url", server)
    assert (done.code, done.err.startswith("recado: 404 Not found: ")) == (1, True)


async def test_dev_on_a_port_in_use_says_which_variable_to_change(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await recado(tmp_path / "home", "dev", PORT=port)

    assert (done.code, done.out) == (1, "")
    assert (
        done.err == f"recado: PORT: 127.0.0.1:{port} cannot be used (Address already in use); set PORT to a free one\n"
    )
    assert not (tmp_path / "home").exists()


async def test_an_environment_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    done = await recado(tmp_path / "home", "chat", "Hello", LOG_LEVEL="LOUD")
    assert (done.code, done.err) == (1, "recado: LOG_LEVEL is 'LOUD': use one of DEBUG, INFO, WARNING, ERROR\n")


@pytest.mark.parametrize("arguments", [(), ("fly",), ("chat",), ("send", "pigeon", "Hello")])
async def test_arguments_that_make_no_sense_end_with_two(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = await recado(tmp_path / "home", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: recado")
