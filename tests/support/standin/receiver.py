"""An application's endpoint for webhooks, beside the page: it keeps what it is told."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

routes = web.RouteTableDef()


class Delivered(BaseModel):
    """One request, with its headers in lower case."""

    headers: dict[str, str]
    body: dict[str, Any]


class Hook(BaseModel):
    """An endpoint: what it answers, and what it was told, also while it answered with an error."""

    model_config = ConfigDict(extra="forbid")

    status: int = Field(200, ge=200, le=599)
    delivered: list[Delivered] = []


HOOKS: web.AppKey[defaultdict[str, Hook]] = web.AppKey("hooks")


@routes.post("/hooks/{name}")
async def receive(request: web.Request) -> web.Response:
    hook = request.app[HOOKS][request.match_info["name"]]
    headers = {name.lower(): value for name, value in request.headers.items()}
    hook.delivered.append(Delivered(headers=headers, body=await request.json()))
    return web.Response(status=hook.status)


@routes.get("/hooks/{name}")
async def show(request: web.Request) -> web.Response:
    hook = request.app[HOOKS][request.match_info["name"]]
    return web.json_response(text=hook.model_dump_json())


@routes.put("/hooks/{name}")
async def replace(request: web.Request) -> web.Response:
    """Start anew, with another status."""
    hook = Hook.model_validate_json(await request.read())
    request.app[HOOKS][request.match_info["name"]] = hook
    return web.json_response({})
