"""aiohttp for a table of operations: what the table says of parameters is checked before a handler runs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiMapping
from pydantic import BaseModel

from wasession_api.http.openapi import Operation
from wasession_api.http.problem import HTTPProblem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# What the operation's models have made of the request.
PATH: web.RequestKey[Any] = web.RequestKey("path", BaseModel)
QUERY: web.RequestKey[Any] = web.RequestKey("query", BaseModel)
HEADERS: web.RequestKey[Any] = web.RequestKey("headers", BaseModel)


def checked(operation: Operation, handler: Handler) -> Handler:
    """The handler with the operation's parameters read into the request, under ``PATH``, ``QUERY`` and ``HEADERS``.

    Raises ``ValidationError`` for a wrong or unknown parameter and ``HTTPProblem`` for one that is
    given twice.
    """

    async def check(request: web.Request) -> web.StreamResponse:
        names = [field.alias or name for name, field in operation.headers.model_fields.items()]
        request[PATH] = operation.path_parameters.model_validate(dict(request.match_info))
        request[QUERY] = operation.query.model_validate(_single(request.query))
        request[HEADERS] = operation.headers.model_validate(_single(request.headers, names))
        return await handler(request)

    return check


class WithoutContent(logging.Filter):
    """Keeps what came over the wire out of the log: aiohttp logs requests that it cannot parse with their headers."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args, record.exc_info = "malformed request", (), None
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return True


def _single(values: MultiMapping[str], names: list[str] | None = None) -> dict[str, str]:
    """Parameters by name."""
    found = {
        name: values.getall(name)
        for name in (names if names is not None else values.keys())
        if name in values
    }
    for name, given in found.items():
        if len(given) > 1:
            raise HTTPProblem(422, "Bad request", f"{name}: it is given more than once")
    return {name: given[0] for name, given in found.items()}
