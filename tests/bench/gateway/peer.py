"""``python -m bench.gateway.peer PORT FILE``: the gateway's peers, as in their documentation.

Plain aiohttp: ``/hello``, and ``/file`` with as many bytes as a list of sessions. Bare
python-socketio: clients enter rooms with ``init``, and a POST to ``/tell`` sends to a room.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import socketio
from aiohttp import web

NAMESPACE = "/whatsapp"


def application(content: bytes) -> web.Application:
    server = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins=[])

    async def init(sid: str, payload: dict[str, Any]) -> dict[str, Any]:
        await server.enter_room(sid, payload["clientId"], namespace=NAMESPACE)
        return {"ok": True}

    async def tell(request: web.Request) -> web.Response:
        event = await request.json()
        await server.emit("state", event, room=event["clientId"], namespace=NAMESPACE)
        return web.Response()

    async def hello(_: web.Request) -> web.Response:
        return web.json_response({"hello": "world"})

    async def file(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type="application/json")

    server.on("init", init, namespace=NAMESPACE)
    app = web.Application()
    app.router.add_get("/hello", hello)
    app.router.add_get("/file", file)
    app.router.add_post("/tell", tell)
    server.attach(app)
    return app


if __name__ == "__main__":
    web.run_app(
        application(Path(sys.argv[2]).read_bytes()),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
    )
