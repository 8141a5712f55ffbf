"""Structured logs: tenant, session, run and step on every line.

A line says what happened in words that never vary and puts what varies into fields:

    logger.info("run finished", extra={"fields": {"outcome": "answered", "steps": 3}})

What a person or a model wrote, a token or a secret stands neither in the words nor in a field. Levels:

    DEBUG    for whoever works on Recado; off in production
    INFO     the life of a session, a few lines a run
    WARNING  something was refused, repeated or gave way, and was dealt with
    ERROR    someone must look: a person got no answer, or something is not as it must be

Libraries log URLs and payloads at INFO and DEBUG (httpx: Telegram's token in the path), so they are heard only from
WARNING on, whatever `LOG_LEVEL` says.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.settings import Settings

Field = str | int | float | bool | None

_OURS = ("shared", "functions")
_SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access")
_ALWAYS: Mapping[str, Field] = {"tenant": "", "session": "", "run": "", "step": ""}
_QUOTES_NOTHING = ("builtins", "shared", "functions", "asyncio", "google", "grpc", "sqlite3", "ssl")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")
_SPECIAL = "logging.googleapis.com"
_CLOUD_TRACE = re.compile(r"(?P<trace>[0-9a-f]{32})(/(?P<span>\d{1,20}))?(;o=(?P<flags>\d))?")


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a request belongs to: 32 and 16 hexadecimal characters, empty when unknown."""

    id: str = ""
    span: str = ""
    sampled: bool = False


_NO_TRACE = Trace()
_bound: ContextVar[Mapping[str, Field]] = ContextVar("bound", default=_ALWAYS)
_trace: ContextVar[Trace] = ContextVar("trace", default=_NO_TRACE)


@contextmanager
def bind(**values: str | int) -> Iterator[None]:
    """Every line logged inside, also by tasks started there, carries these values; an inner `bind` adds and replaces.

    They are logged as text, so that `run` has the same type whether or not there is one.
    """
    token = _bound.set({**_bound.get(), **{name: str(value) for name, value in values.items()}})
    try:
        yield
    finally:
        _bound.reset(token)


@contextmanager
def traced(headers: Mapping[str, str]) -> Iterator[None]:
    """Every line logged inside belongs to the trace that `traceparent` or `X-Cloud-Trace-Context` names, if any.

    `headers` are looked up in lower case.
    """
    token = _trace.set(_read_trace(headers))
    try:
        yield
    finally:
        _trace.reset(token)


def current_trace() -> Trace:
    """The trace of the request that is being served."""
    return _trace.get()


def configure(settings: Settings) -> None:
    """Send every line of this process to standard error, in the format and from the level that the settings name.

    Replaces the handlers that were there; calling it again replaces its own.
    """
    level = logging.getLevelNamesMapping()[settings.log_level]
    handler = _handler(settings)
    handler.setLevel(level)
    handler.addFilter(_heard)  # holds as well for a library that gives its own loggers a level
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    quieten(*_SERVERS)


def quieten(*names: str) -> None:
    """Make these loggers of a library that sets up its own log after `configure` speak like all others."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def values_of(record: logging.LogRecord) -> dict[str, Field]:
    """Everything bound or passed that goes with a line; tenant, session, run and step are there even when empty."""
    return {**_bound.get(), **getattr(record, "fields", {})}


class PlainFormatter(logging.Formatter):
    """The words of a line and, below them, the stack of its exception.

    The stack has no text of foreign exceptions: pydantic quotes the input, httpx the URL with its token.
    """

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        return f"{record.getMessage()}\n{_stack(error)}" if error else record.getMessage()


class LineFormatter(PlainFormatter):
    """A line for people: time, level, logger, words, then `name=value` of every field that is not empty."""

    def format(self, record: logging.LogRecord) -> str:
        words, *below = super().format(record).split("\n")
        time = f"{self.formatTime(record, '%H:%M:%S')}.{record.msecs:03.0f}"
        shown = [f"{name}={_quoted(value)}" for name, value in values_of(record).items() if value not in ("", None)]
        head = " ".join([f"{time} {record.levelname:<7} {record.name}: {words}", *shown])
        return "\n".join([head, *below])


class JsonFormatter(PlainFormatter):
    """A line for Cloud Logging, which Cloud Run reads from standard error: one JSON object with `time`, `severity`,
    `message`, trace, source location, and every field as a key of its own.

    https://cloud.google.com/logging/docs/structured-logging names the special fields. The handler of
    google-cloud-logging writes the same, and brings 209 modules of its client into every cold start;
    python-json-logger would leave the names to be given just as here.
    """

    def __init__(self, project: str) -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        trace = current_trace()
        where = {"file": record.pathname, "line": str(record.lineno), "function": record.funcName}
        line = {
            **values_of(record),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "severity": record.levelname,
            "message": super().format(record),
            f"{_SPECIAL}/labels": {"python_logger": record.name},
            f"{_SPECIAL}/trace": f"projects/{self._project}/traces/{trace.id}" if trace.id and self._project else "",
            f"{_SPECIAL}/spanId": trace.span,
            f"{_SPECIAL}/trace_sampled": trace.sampled,
            f"{_SPECIAL}/sourceLocation": where,
        }
        return json.dumps(line, default=str)


def _handler(settings: Settings) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(settings.project) if settings.log_format == "json" else LineFormatter())
    return handler


def _heard(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.split(".")[0] in _OURS


def _quoted(value: Field) -> str:
    text = str(value)
    return text if text.isprintable() and not set(text) & {" ", '"', "="} else json.dumps(text)


def _read_trace(headers: Mapping[str, str]) -> Trace:
    if found := _TRACEPARENT.match(headers.get("traceparent", "")):
        return Trace(found["trace"], found["span"], sampled=bool(int(found["flags"], 16) & 1))
    if found := _CLOUD_TRACE.match(headers.get("x-cloud-trace-context", "")):
        span = f"{int(found['span']) & (1 << 64) - 1:016x}" if found["span"] else ""  # decimal in this header alone
        return Trace(found["trace"], span, sampled=found["flags"] == "1")
    return _NO_TRACE


def _stack(error: BaseException) -> str:
    """As Python prints it (Error Reporting reads that form), foreign text withheld."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{_stack(earlier)}\n\nThe above exception led to the following exception:\n\n" if earlier else ""
    kind = type(error)
    known = kind.__module__.split(".")[0] in _QUOTES_NOTHING
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = str(error) if known else "(text withheld: it may quote what was sent)"
    frames = "".join(traceback.format_tb(error.__traceback__))
    parts = [_stack(part) for part in getattr(error, "exceptions", ())]
    return "\n".join([f"{before}Traceback (most recent call last):\n{frames}{name}: {text}", *parts])
