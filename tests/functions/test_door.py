"""Who may come in on a development machine: the browser with the one-time key, and nobody by another name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from shared.cli.door import Door
from tests.functions.conftest import Stack, is_problem

HERE = "http://127.0.0.1:8080"


@pytest.fixture
def door(stack: Stack) -> Door:
    return Door(stack.dispatcher, stack.here, stack.keys.operator)


@pytest.fixture
async def browser(stack: Stack, door: Door) -> AsyncIterator[httpx.AsyncClient]:
    async with stack.client(door) as client:
        client.base_url = httpx.URL(HERE)
        yield client


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.", ""])
async def test_another_host_name_is_refused(browser: httpx.AsyncClient, host: str) -> None:
    for path in ("/", "/health", "/v1/sessions", "/telegram/demo-telegram"):
        assert is_problem(await browser.get(path, headers={"Host": host}), 400, "Host: ")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "localhost"])
async def test_this_machines_names_are_served(browser: httpx.AsyncClient, host: str) -> None:
    assert (await browser.get("/health", headers={"Host": host})).status_code == 200


async def test_the_one_time_key_opens_once(stack: Stack, door: Door, browser: httpx.AsyncClient) -> None:
    key = door.one_time_key
    first = await browser.get(f"/?key={key}")
    async with stack.client(door) as another:
        second = await another.get(f"/?key={key}", headers={"Host": "127.0.0.1:8080"})

    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert is_problem(second, 401, "key: ")


@pytest.mark.parametrize("query", ["?key=", "?key=wrong", "?key=%C3%BC"])
async def test_another_key_opens_nothing_and_leaves_the_right_one(
    door: Door, browser: httpx.AsyncClient, query: str
) -> None:
    assert is_problem(await browser.get(f"/{query}"), 401, "key: ")
    assert (await browser.get(f"/?key={door.one_time_key}")).status_code == 303


async def test_an_empty_key_does_not_open_what_was_opened_before(
    stack: Stack, door: Door, browser: httpx.AsyncClient
) -> None:
    await browser.get(f"/?key={door.one_time_key}")
    async with stack.client(door) as another:
        assert is_problem(await another.get("/?key=", headers={"Host": "localhost"}), 401)


async def test_the_cookie_opens_sessions_and_the_page_that_lists_them(
    stack: Stack, door: Door, browser: httpx.AsyncClient
) -> None:
    session = await stack.say("Hello")
    await browser.get(f"/?key={door.one_time_key}")
    page = await browser.get("/sessions")

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"/v1/sessions/{session}" in page.text
    assert [found["id"] for found in (await browser.get("/v1/sessions")).json()] == [session]


async def test_a_page_shows_a_conversations_name_as_text(stack: Stack, door: Door, browser: httpx.AsyncClient) -> None:
    await stack.invoke({"input": "Hello", "session": "<script>alert(1)</script>"})
    await browser.get(f"/?key={door.one_time_key}")
    page = await browser.get("/sessions")

    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


@pytest.mark.parametrize("cookie", [None, "", "wrong", "ü"])
async def test_without_the_cookie_the_sessions_are_closed(browser: httpx.AsyncClient, cookie: str | None) -> None:
    headers = {} if cookie is None else {b"cookie": f"recado={cookie}".encode()}
    assert is_problem(await browser.get("/v1/sessions", headers=headers), 401, "Authorization")
    assert is_problem(await browser.get("/sessions", headers=headers), 401)


async def test_an_api_key_counts_more_than_the_cookie(stack: Stack, door: Door, browser: httpx.AsyncClient) -> None:
    await browser.get(f"/?key={door.one_time_key}")
    stranger = {"Authorization": f"Bearer {stack.keys.stranger}"}
    await stack.say("Hello")

    assert (await browser.get("/v1/sessions", headers=stranger)).json() == []
