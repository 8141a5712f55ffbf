"""Cloud Logging's structured format: one JSON object a line on standard error, which Cloud Run reads.

https://cloud.google.com/logging/docs/structured-logging names the special fields. The handler of google-cloud-logging
writes the same, and brings 250 modules of its client into every cold start; python-json-logger would leave the names to
be given just as here.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from shared.observability.logging import PlainFormatter, current_trace, values_of

_SPECIAL = "logging.googleapis.com"


class JsonFormatter(PlainFormatter):
    """`time`, `severity`, `message`, trace, source location, and every field as a key of its own."""

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
