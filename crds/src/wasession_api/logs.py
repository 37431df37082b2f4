"""Structured logging: one JSON object per line on standard output."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from wasession_api import tracing

STANDARD = set(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "taskName"}


TEXT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """Format time, level, logger, message, the given fields and those of ``extra``.

    A line about what is traced has the IDs of its trace and span.
    """

    def __init__(self, **fields: str) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
            **tracing.current().ids,
        }
        entry |= {key: value for key, value in vars(record).items() if key not in STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: str = "INFO", *, text: bool = False, **fields: str | None) -> None:
    """Log to standard output, as JSON with ``fields`` in each line, or as text for people."""
    handler = logging.StreamHandler(sys.stdout)
    present = {name: value for name, value in fields.items() if value is not None}
    handler.setFormatter(logging.Formatter(TEXT) if text else JsonFormatter(**present))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
