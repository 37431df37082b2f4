"""What the handlers have in common: the session, bodies, and JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel
from wasession_api.http.problem import HTTPProblem

from wasession_pod.api.uploads import READ_TIMEOUT
from wasession_pod.session import Session

SESSION = web.AppKey("session", Session)


def json_response(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    text = model.model_dump_json(by_alias=True, exclude_none=True)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


async def read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            return await request.read()
    except TimeoutError:
        detail = f"the body did not arrive within {READ_TIMEOUT:.0f} s"
        raise HTTPProblem(408, "Request timeout", detail) from None
