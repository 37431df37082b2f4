"""The host that the page's scripts come from, and what may be wrong with it."""

from __future__ import annotations

import asyncio

from aiohttp import web
from support.standin import generated
from support.standin.page import WWW
from support.standin.world import World

NAME = "static.localhost"  # browsers take it for this machine, whatever its DNS says


def application(world: World) -> web.Application:
    async def serve(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        match world.behaviour.scripts:
            case "hanging":
                await asyncio.Event().wait()
            case "reset":
                assert request.transport is not None
                request.transport.abort()
            case "html":
                return web.Response(text="<h1>Blocked</h1>", content_type="text/html")
            case "served" if name.startswith("generated-"):
                return generated.response(name)
            case "served" if (file := WWW / name).is_file():
                return web.FileResponse(file, headers={"Access-Control-Allow-Origin": "*"})
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/{name:.*}", serve)
    return app
