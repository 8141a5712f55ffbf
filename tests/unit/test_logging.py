from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pydantic
import pytest

from shared.errors import StoreDown
from shared.observability import bind, configure, quieten, traced
from shared.settings import Settings, SettingsError, from_environment

logger = logging.getLogger("shared.example")
IDS = ("tenant", "session", "run", "step")
TEXT = Settings()
JSON = Settings(log_format="json", project="demo")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    names = (None, "shared", "functions", "uvicorn", "uvicorn.error", "uvicorn.access", "talkative")
    loggers = [logging.getLogger(name) for name in names]
    before = [(list(one.handlers), one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


Capture = pytest.CaptureFixture[str]


def written(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_json_line_has_the_four_ids_even_when_unknown(capsys: Capture) -> None:
    configure(JSON)
    logger.info("ready")
    (line,) = written(capsys)
    assert [line[name] for name in IDS] == ["", "", "", ""]


def test_bound_values_and_fields_are_keys_of_the_json_line(capsys: Capture) -> None:
    configure(JSON)
    with bind(tenant="acme", session="s1"), bind(run=3, step="model/0"):
        logger.info("step recorded", extra={"fields": {"tokens": 12}})
    (line,) = written(capsys)
    assert [line[name] for name in IDS] == ["acme", "s1", "3", "model/0"]
    assert (line["message"], line["severity"], line["tokens"]) == ("step recorded", "INFO", 12)
    assert line["time"].endswith("+00:00")
    assert line["logging.googleapis.com/sourceLocation"]["file"] == __file__


def test_an_inner_bind_ends_where_it_began(capsys: Capture) -> None:
    configure(JSON)
    with bind(tenant="acme"):
        with bind(tenant="other", run=1):
            pass
        logger.info("after")
    (line,) = written(capsys)
    assert (line["tenant"], line["run"]) == ("acme", "")


async def test_tasks_of_two_tenants_do_not_mix(capsys: Capture) -> None:
    configure(JSON)
    both = asyncio.Barrier(2)

    async def work(tenant: str) -> None:
        with bind(tenant=tenant):
            await both.wait()
            logger.info("working", extra={"fields": {"expected": tenant}})

    await asyncio.gather(work("a"), work("b"))
    lines = written(capsys)
    assert {line["tenant"] for line in lines} == {"a", "b"}
    assert all(line["tenant"] == line["expected"] for line in lines)


@pytest.mark.parametrize(
    ("headers", "trace", "span", "sampled"),
    [
        ({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, f"projects/demo/traces/{TRACE}", "b7ad6b7169203331", True),
        (
            {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"},
            f"projects/demo/traces/{TRACE}",
            "b7ad6b7169203331",
            False,
        ),
        ({"x-cloud-trace-context": f"{TRACE}/18;o=1"}, f"projects/demo/traces/{TRACE}", "0000000000000012", True),
        ({"x-cloud-trace-context": TRACE}, f"projects/demo/traces/{TRACE}", "", False),
        ({"traceparent": "not a trace"}, "", "", False),
        ({}, "", "", False),
    ],
)
def test_a_line_belongs_to_the_trace_of_its_request(
    *, capsys: Capture, headers: dict[str, str], trace: str, span: str, sampled: bool
) -> None:
    configure(JSON)
    with traced(headers):
        logger.info("inside")
    logger.info("outside")
    inside, outside = written(capsys)
    assert inside["logging.googleapis.com/trace"] == trace
    assert inside["logging.googleapis.com/spanId"] == span
    assert inside["logging.googleapis.com/trace_sampled"] is sampled
    assert outside["logging.googleapis.com/trace"] == ""


def test_an_exception_is_one_json_line_with_its_whole_stack(capsys: Capture) -> None:
    configure(JSON)
    try:
        try:
            os.environ["RECADO_NO_SUCH_VARIABLE"]
        except KeyError as error:
            raise StoreDown("the store did not answer in 5 s") from error
    except StoreDown:
        logger.exception("commit failed")
    (line,) = written(capsys)
    assert line["severity"] == "ERROR"
    assert line["message"].startswith("commit failed\nTraceback (most recent call last):\n  File ")
    assert "KeyError: 'RECADO_NO_SUCH_VARIABLE'" in line["message"]
    assert line["message"].endswith("shared.errors.StoreDown: the store did not answer in 5 s")


@pytest.mark.parametrize("settings", [TEXT, JSON], ids=["text", "json"])
def test_what_a_library_quotes_in_its_exception_is_withheld(capsys: Capture, settings: Settings) -> None:
    configure(settings)
    said = "my card is 4111"
    for wrapped in (False, True):
        try:
            try:
                pydantic.TypeAdapter(int).validate_python(said)
            except pydantic.ValidationError as error:
                if wrapped:
                    raise ExceptionGroup("unhandled errors", [error]) from None
                raise
        except (pydantic.ValidationError, ExceptionGroup):
            logger.exception("not understood")
    output = capsys.readouterr().err
    assert said not in output
    assert output.count("ValidationError: (text withheld") == 2


def test_a_local_line_is_readable_and_shows_only_what_is_known(capsys: Capture) -> None:
    configure(TEXT)
    with bind(tenant="acme", run=3):
        logger.warning("delivery refused", extra={"fields": {"reason": 'chat "x" not found', "id": "3/reply/0"}})
    line = capsys.readouterr().err
    assert line.split(" ", 1)[1] == (
        'WARNING shared.example: delivery refused tenant=acme run=3 reason="chat \\"x\\" not found" id=3/reply/0\n'
    )


def test_a_field_cannot_forge_a_second_line(capsys: Capture) -> None:
    configure(TEXT)
    logger.info("refused", extra={"fields": {"reason": "no\n12:00:00.000 ERROR   shared: forged\x1b[2J"}})
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "\x1b" not in output


def test_the_level_holds_for_recado_and_libraries_are_heard_from_warning_on(capsys: Capture) -> None:
    configure(Settings(log_level="DEBUG"))
    logger.debug("ours")
    logging.getLogger("talkative").info("POST https://api.telegram.org/bot123:token/sendMessage")
    logging.getLogger("talkative").warning("theirs")
    output = capsys.readouterr().err
    assert "ours" in output
    assert "theirs" in output
    assert "token" not in output


def test_a_level_above_warning_silences_libraries_as_well(capsys: Capture) -> None:
    configure(Settings(log_level="ERROR"))
    logger.warning("ours")
    logging.getLogger("talkative").warning("theirs")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("settings", [TEXT, JSON], ids=["text", "json"])
def test_a_library_cannot_raise_its_own_voice(capsys: Capture, settings: Settings) -> None:
    configure(settings)
    logging.getLogger("talkative").setLevel("DEBUG")
    logging.getLogger("talkative").info("prompt")
    assert capsys.readouterr().err == ""
    configure(replace(settings, log_level="ERROR"))
    logging.getLogger("talkative").warning("slow")
    assert capsys.readouterr().err == ""


def test_a_library_that_set_up_its_own_log_speaks_like_the_others_once_quietened(capsys: Capture) -> None:
    talkative = logging.getLogger("talkative")
    talkative.addHandler(logging.StreamHandler())
    talkative.setLevel("INFO")
    talkative.propagate = False
    configure(JSON)
    quieten("talkative")
    talkative.info("prompt")
    talkative.warning("slow")
    (line,) = written(capsys)
    assert line["message"] == "slow"


def test_the_access_log_of_the_server_is_silent_because_addresses_can_be_secret(capsys: Capture) -> None:
    access = logging.getLogger("uvicorn.access")
    access.addHandler(logging.StreamHandler())
    access.setLevel("INFO")
    configure(TEXT)
    access.info("GET /v1/callbacks/secret")
    assert capsys.readouterr().err == ""


def test_configuring_twice_writes_each_line_once(capsys: Capture) -> None:
    configure(JSON)
    configure(JSON)
    logger.info("once")
    assert len(written(capsys)) == 1


def test_lines_are_json_on_cloud_run_and_readable_elsewhere_unless_said_otherwise() -> None:
    cloud = {"K_SERVICE": "ingest", "GOOGLE_CLOUD_PROJECT": "demo", "RECADO_FILES": "gs://demo-recado-files"}
    assert from_environment({}).log_format == "text"
    assert from_environment(cloud).log_format == "json"
    assert from_environment({"LOG_FORMAT": "json"}).log_format == "json"
    assert from_environment({**cloud, "LOG_FORMAT": "text"}).log_format == "text"


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="LOG_FORMAT is 'xml': use one of text, json"):
        from_environment({"LOG_FORMAT": "xml"})
