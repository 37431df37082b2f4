"""aiohttp handlers for a table of operations, with validated parameters."""

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


# The validated parameters of a request.
PATH: web.RequestKey[Any] = web.RequestKey("path", BaseModel)
QUERY: web.RequestKey[Any] = web.RequestKey("query", BaseModel)
HEADERS: web.RequestKey[Any] = web.RequestKey("headers", BaseModel)


def checked(operation: Operation, handler: Handler) -> Handler:
    """Return a handler that first validates the operation's parameters.

    They are stored in the request under ``PATH``, ``QUERY`` and ``HEADERS``. Raises
    ``ValidationError`` for an invalid or unknown parameter, ``HTTPProblem`` for a repeated one.
    """

    async def check(request: web.Request) -> web.StreamResponse:
        names = [field.alias or name for name, field in operation.headers.model_fields.items()]
        request[PATH] = operation.path_parameters.model_validate(dict(request.match_info))
        request[QUERY] = operation.query.model_validate(_single(request.query))
        request[HEADERS] = operation.headers.model_validate(_single(request.headers, names))
        return await handler(request)

    return check


class WithoutContent(logging.Filter):
    """Log malformed requests at DEBUG and without their content, which aiohttp would log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args, record.exc_info = "malformed request", (), None
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


def _single(values: MultiMapping[str], names: list[str] | None = None) -> dict[str, str]:
    """Return the values by name, only of ``names`` if given; none may be repeated."""
    result: dict[str, str] = {}
    for name in names if names is not None else values.keys():
        if name in values:
            result[name], *repeated = values.getall(name)
            if repeated:
                raise HTTPProblem(422, "Bad request", f"{name}: given more than once")
    return result
