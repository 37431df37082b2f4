"""Fakes of the API server and of session pods, on loopback addresses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from wasession_api import names
from wasession_api.base import rfc3339
from wasession_api.http.problem import to_problem
from wasession_api.session_pod.messages import SendMedia, SendText
from wasession_api.session_pod.token_derivation import derive_token
from wasession_api.v1alpha1 import API_VERSION, KIND

NAMESPACE = "sessions"
KEY = bytes(range(32))  # of the namespace's sessions
Body = dict[str, Any]


def now(**later: float) -> str:
    return rfc3339(datetime.now(UTC) + timedelta(**later))


def key_file(key: bytes = KEY) -> str:
    """Return the content of the mounted file, as the operator writes the Secret."""
    return base64.b64encode(key).decode()


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int = 0) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class ApiServer:
    """A kube-apiserver as far as the gateway uses it: versions, patches and watches."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failing = False
        self.forbidden = ""  # what the gateway is denied, such as "pods"
        self.port = 0
        self.made: Callable[[str], Awaitable[None]] | None = (
            None  # called for each session that a client creates
        )
        self._sessions: dict[str, Body] = {}
        self._others: dict[tuple[str, str], Body] = {}
        self._version = 100
        self._oldest = 0  # the oldest version that a watch can start from
        self._events: list[tuple[int, str, Body]] = []
        self._news = asyncio.Condition()
        sessions = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/whatsappsessions"
        self.app = web.Application(middlewares=[self._counted])
        self.app.router.add_get(sessions, self._list)
        self.app.router.add_post(sessions, self._create)
        self.app.router.add_patch(f"{sessions}/{{name}}", self._patch)
        self.app.router.add_delete(f"{sessions}/{{name}}", self._delete)
        self.app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/{{plural}}/{{name}}", self._get)

    # --- what tests do with it --------------------------------------------------------------------

    def session(self, name: str) -> Body:
        return self._sessions[name]

    @property
    def names(self) -> list[str]:
        return sorted(self._sessions)

    @property
    def versions(self) -> dict[str, str]:
        return {name: body["metadata"]["resourceVersion"] for name, body in self._sessions.items()}

    async def put(self, name: str, spec: Body, status: Body | None = None) -> Body:
        """A session as kubectl and the operator leave it."""
        body = self._sessions.get(name) or self._new(name)
        return await self._store({**body, "spec": spec, "status": status or body.get("status", {})})

    async def status(self, name: str, **fields: Any) -> None:
        """What the operator writes; a None takes a field away."""
        body = self._sessions[name]
        status = {**body.get("status", {}), **fields}
        await self._store(
            {
                **body,
                "status": {field: value for field, value in status.items() if value is not None},
            }
        )

    async def remove(self, name: str) -> None:
        body = self._sessions.pop(name)
        await self._record("DELETED", body)

    def add_pod(self, session: str, address: str) -> None:
        """Add a session's pod."""
        name = names.object_name(session)
        owner = {"uid": self._sessions[session]["metadata"]["uid"], "controller": True}
        metadata = {"name": name, "ownerReferences": [owner], "uid": str(uuid.uuid4())}
        self._others["pods", name] = {"metadata": metadata, "status": {"podIP": address}}

    def remove_pod(self, session: str) -> None:
        """Remove a session's pod, if it has one."""
        self._others.pop(("pods", names.object_name(session)), None)

    @property
    def secrets_read(self) -> bool:
        """Whether the gateway has tried to read a Secret."""
        return any("/secrets" in call for call in self.calls)

    async def forget_history(self) -> None:
        """End all watches; none can resume."""
        self._oldest = self._version = self._version + 1
        async with self._news:
            self._news.notify_all()

    # --- HTTP ------------------------------------------------------------------------------------

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        verb = "WATCH" if "watch" in request.query else request.method
        self.calls[f"{verb} {request.path.rsplit('/', 1)[0]}"] += 1
        if "/secrets" in request.path:
            return _status(403, "Forbidden", "the gateway cannot read Secrets")
        if self.failing:
            return _status(500, "InternalError", "etcdserver: request timed out")
        if self.forbidden and self.forbidden in f"{request.method} {request.path}":
            return _status(403, "Forbidden", f"the gateway cannot {request.method} {request.path}")
        return await handler(request)  # type: ignore[no-any-return]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        items = [self._sessions[name] for name in self.names]
        start, limit = (
            int(request.query.get("continue", 0)),
            int(request.query.get("limit", len(items) or 1)),
        )
        metadata: Body = {"resourceVersion": str(self._version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        return web.json_response({"metadata": metadata, "items": items[start : start + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        position = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            if position < self._oldest:
                gone = {
                    "kind": "Status",
                    "code": 410,
                    "reason": "Expired",
                    "message": "too old resource version",
                }
                await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                return response
            for version, kind, body in [event for event in self._events if event[0] > position]:
                await response.write(json.dumps({"type": kind, "object": body}).encode() + b"\n")
                position = version
            async with self._news:
                while self._version <= position and self._oldest <= position:
                    await self._news.wait()

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if name in self._sessions:
            return _status(409, "AlreadyExists", f'whatsappsessions "{name}" already exists')
        if body["spec"].get("pairing", {}).get("phoneNumber") == "15550000000":
            return _status(422, "Invalid", "spec.pairing.phoneNumber: not this one")
        stored = await self._store({**self._new(name), "spec": body["spec"]})
        if self.made is not None:
            await self.made(name)
        return web.json_response(stored, status=201)

    async def _patch(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        body = self._sessions.get(request.match_info["name"])
        if body is None:
            return _status(404, "NotFound", "not found")
        patch = await request.json()
        metadata = patch.get("metadata", {})
        if (
            metadata.get("resourceVersion", body["metadata"]["resourceVersion"])
            != body["metadata"]["resourceVersion"]
        ):
            return _status(409, "Conflict", "the object has been modified")
        return web.json_response(await self._store(_merge(body, patch)))

    async def _delete(self, request: web.Request) -> web.Response:
        """As with the operator's finalizer: the object stays until ``remove``."""
        body, wanted = (
            self._sessions.get(request.match_info["name"]),
            (await request.json())["preconditions"],
        )
        if body is None:
            return _status(404, "NotFound", "not found")
        if any(body["metadata"][field] != value for field, value in wanted.items()):
            return _status(409, "Conflict", "Precondition failed")
        return web.json_response(
            await self._store(_merge(body, {"metadata": {"deletionTimestamp": now()}}))
        )

    async def _get(self, request: web.Request) -> web.Response:
        obj = self._others.get((request.match_info["plural"], request.match_info["name"]))
        return web.json_response(obj) if obj else _status(404, "NotFound", "not found")

    def _new(self, name: str) -> Body:
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now(),
        }
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}

    async def _store(self, body: Body) -> Body:
        name = body["metadata"]["name"]
        kind = "MODIFIED" if name in self._sessions else "ADDED"
        self._sessions[name] = await self._record(kind, body)
        return self._sessions[name]

    async def _record(self, kind: str, body: Body) -> Body:
        self._version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        self._events.append((self._version, kind, body))
        async with self._news:
            self._news.notify_all()
        return body


def _merge(body: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict) or not isinstance(body, dict):
        return patch
    merged = {**body, **{key: _merge(body.get(key, {}), value) for key, value in patch.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "code": code, "reason": reason, "message": message}, status=code
    )


class Pod:
    """A session pod's HTTP API. ``sent`` has the messages that it was asked to send."""

    def __init__(self, session_uid: str) -> None:
        self.token, self.sent, self.logouts = derive_token(KEY, session_uid, 0), list[Body](), 0
        self.others: set[str] = set()  # tokens of further sessions that it stands for
        self.asked: Counter[str] = Counter()  # requests by method and path, with the right token
        self.refused: list[str] = []  # tokens that it rejected
        self.traceparents: list[str | None] = []  # of all requests
        self.hold = asyncio.Event()  # what `POST /v1/messages` waits for
        self.hold.set()
        self.code: str | None = None
        self.answer: Body | None = None  # the next response with a link code
        self.unconfirmed = False  # whether sends and logouts end with 504
        self.followers = 0
        self.torn = False  # whether lists and files break off
        self.file = bytes(range(256)) * 4096  # of every message
        self.file_headers: dict[str, str] = {}  # besides the usual ones, or in their place
        self.live_view = False
        self.viewers = self.shown = 0  # of screencasts, and how many pictures they had
        self.picture = b"\xff\xd8\xff a picture"
        self.picture_type: str | None = None  # in place of what it should be
        self._repainted = asyncio.Event()  # set, and then replaced, when the picture changes
        self.outbox = uuid.uuid4().hex[:16]
        self.deliveries: list[Body] = []
        self.dead_letters: list[Body] = []  # of each of the deliveries
        self.replayed: list[Body] = []  # the bodies of requests to deliver again
        self.is_old = False  # whether it is of a version without pages of events
        self.state: Body = {
            "clientId": "x",
            "sessionUid": session_uid,
            "startedAt": now(),
            "seq": 1,
            "phase": "Ready",
            "reason": "Connected",
        }
        self._events: list[tuple[int, str, Body]] = []  # of the outbox
        self._restarts = 0
        self._news = asyncio.Condition()
        self.app = web.Application(middlewares=[self._authenticated], client_max_size=2**26)
        self.app.router.add_get("/v1/state", self._state)
        self.app.router.add_get("/v1/events", self._events_as_wanted)
        self.app.router.add_get("/v1/pairing", self._pairing)
        self.app.router.add_post("/v1/pairing/refresh", self._refresh)
        self.app.router.add_post("/v1/messages", self._send)
        self.app.router.add_get("/v1/messages/{id}", self._message)
        self.app.router.add_get("/v1/messages/{id}/media", self._media)
        self.app.router.add_get("/v1/chats/{id}/messages", self._messages)
        self.app.router.add_get("/v1/chats", self._chats)
        self.app.router.add_get("/v1/contacts", self._chats)
        self.app.router.add_get("/v1/contacts/{id}", self._contact)
        self.app.router.add_post("/v1/logout", self._logout)
        self.app.router.add_get("/v1/screenshot", self._screenshot, allow_head=False)
        self.app.router.add_get("/v1/screencast", self._screencast, allow_head=False)
        self.app.router.add_get("/v1/deliveries", self._list_deliveries)
        self.app.router.add_get("/v1/deliveries/{name}/dead-letters", self._list_dead_letters)
        self.app.router.add_post("/v1/deliveries/{name}/dead-letters/replay", self._replay_dead)
        self.app.router.add_post("/v1/deliveries/{name}/replay", self._replay)
        self.app.router.add_post("/v1/deliveries/{name}/{verb:pause|resume}", self._pause)

    def show(self, picture: bytes) -> None:
        """Change what the page shows."""
        self.picture = picture
        self._repainted.set()
        self._repainted = asyncio.Event()

    async def says(self, **fields: Any) -> None:
        """A new report."""
        self.state = {**self.state, **fields, "seq": self.state["seq"] + 1}
        async with self._news:
            self._news.notify_all()

    async def offers(
        self, code: str, attempt: int, method: str = "QRCode", seconds: float = 20
    ) -> None:
        """A phone can be linked with this code, for some seconds."""
        self.code = code
        pairing = {
            "available": True,
            "method": method,
            "attempt": attempt,
            "expiresAt": now(seconds=seconds),
        }
        await self.says(phase="Authenticating", reason="WaitingForScan", pairing=pairing)

    async def receives(self, text: str, **fields: Any) -> None:
        message = {
            "id": f"false_15550001111@c.us_{uuid.uuid4().hex[:16].upper()}",
            "chatId": "15550001111@c.us",
            "from": "15550001111@c.us",
            "fromMe": False,
            "type": "chat",
            "text": text,
            "sentAt": now(),
        }
        await self._publish("message", {**message, **fields})

    async def tells(self, kind: str, data: Body) -> None:
        await self._publish(kind, data)

    async def _publish(self, kind: str, data: Body) -> None:
        self._events.append((len(self._events) + 1, kind, data))
        async with self._news:
            self._news.notify_all()

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Any) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.traceparents.append(request.headers.get("traceparent"))
        if shown not in {self.token, *self.others}:
            self.refused.append(shown)
            return web.json_response(
                {"title": "Unauthorized", "status": 401, "detail": "no"}, status=401
            )
        self.asked[f"{request.method} {request.path}"] += 1
        return await handler(request)  # type: ignore[no-any-return]

    async def _state(self, _: web.Request) -> web.Response:
        return web.json_response(self.state)

    def cursor(self, number: int) -> str:
        return f"{self.outbox}-{number}"

    @property
    def latest(self) -> str:
        return self.cursor(len(self._events))

    async def restarts(self) -> None:
        """End all streams; what it has told it still has."""
        self._restarts += 1
        async with self._news:
            self._news.notify_all()

    def _after(self, cursor: str) -> tuple[int, list[Body]]:
        """Return the number that a cursor stands for, and a gap for one of another outbox."""
        outbox, _, number = cursor.partition("-")
        if outbox == self.outbox:
            return int(number), []
        return 0, [self._event(0, "gap", {"reason": "OutboxReplaced"})]

    def _event(self, number: int, kind: str, data: Body) -> Body:
        return {"id": self.cursor(number), "kind": kind, "time": now(), "data": data}

    async def _events_as_wanted(self, request: web.Request) -> web.StreamResponse:
        if "application/json" not in request.headers.get("Accept", ""):
            assert not request.query
            return await self._stream(request)
        if self.is_old:
            problem = {"title": "Bad request", "status": 422, "detail": "after: unknown"}
            return web.json_response(problem, status=422)
        query = request.query
        number, items = self._after(query.get("after", self.cursor(0)))
        deadline = asyncio.timeout(float(query.get("wait", 0)))
        with contextlib.suppress(TimeoutError):
            async with deadline, self._news:
                await self._news.wait_for(lambda: items or len(self._events) > number)
        kinds = query["types"].split(",") if "types" in query else None
        limit = int(query.get("limit", 100))
        for event_number, kind, data in self._events[number:][:limit]:
            number = event_number
            if kinds is None or kind in [*kinds, "gap"]:
                items.append(self._event(event_number, kind, data))
        more = number < len(self._events)
        return web.json_response({"items": items, "next": self.cursor(number), "more": more})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        last, missed = self._after(request.headers.get("Last-Event-ID", self.latest))
        restarts, report = self._restarts, None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.followers += 1
        try:
            while restarts == self._restarts:
                if report is not self.state:
                    report = self.state
                    await _write(response, self.cursor(last), "state", report)
                for gap in missed:
                    await _write(response, gap["id"], "gap", gap["data"])
                missed = []
                for number, kind, data in self._events[last:]:
                    await _write(response, self.cursor(number), kind, data)
                    last = number
                async with self._news:
                    while (
                        len(self._events) <= last
                        and report is self.state
                        and restarts == self._restarts
                    ):
                        await self._news.wait()
            return response
        finally:
            self.followers -= 1

    async def _pairing(self, request: web.Request) -> web.Response:
        if self.code is None:
            problem = {
                "title": "No code",
                "status": 404,
                "detail": "no phone can be linked now",
                "phase": "Ready",
            }
            return web.json_response(problem, status=404, content_type="application/problem+json")
        if "image/png" in request.headers.get("Accept", ""):
            return web.Response(body=b"\x89PNG...", content_type="image/png")
        offered = self.state.get("pairing") or {"method": "QRCode", "attempt": 1}
        answer, self.answer = self.answer or {**offered, "code": self.code}, None
        return web.json_response(answer)

    async def _refresh(self, _: web.Request) -> web.Response:
        return web.json_response({}, status=202)

    async def _send(self, request: web.Request) -> web.Response:
        try:
            if request.content_type == "application/json":
                SendText.model_validate_json(await request.read())
                order = await request.json()
            else:
                form = await request.post()
                files = {
                    name: value.file.read()
                    for name, value in form.items()
                    if isinstance(value, web.FileField)
                }
                fields = {name: value for name, value in form.items() if name not in files}
                SendMedia.model_validate(fields)
                order = fields | files
        except ValidationError as error:
            problem = to_problem(error).problem().dump()
            return web.json_response(
                problem, status=problem["status"], content_type="application/problem+json"
            )
        self.sent.append({**order, "key": request.headers.get("Idempotency-Key")})
        await self.hold.wait()
        location = "/v1/messages/true_15550001111@c.us_3EB0"
        if self.unconfirmed:
            return _unconfirmed({"Retry-After": "10", "Location": location})
        sent = {
            "id": "true_15550001111@c.us_3EB0",
            "to": "15550001111@c.us",
            "ack": 1,
            "sentAt": now(),
        }
        return web.json_response(
            sent,
            status=201,
            headers={"Idempotent-Replayed": "true", "X-Internal": "secret", "Location": location},
        )

    async def _message(self, request: web.Request) -> web.Response:
        return web.json_response(self._sent(request.match_info["id"]))

    async def _messages(self, request: web.Request) -> web.Response:
        message = self._sent(f"true_{request.match_info['id']}_3EB0")
        return web.json_response({"items": [{**message, "query": dict(request.query)}]})

    def _sent(self, message_id: str) -> Body:
        return {
            "id": message_id,
            "chatId": "15550001111@c.us",
            "from": "15551234567@c.us",
            "fromMe": True,
            "type": "chat",
            "sentAt": now(),
            "ack": 2,
        }

    async def _chats(self, request: web.Request) -> web.StreamResponse:
        if self.torn:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"items":[')
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.json_response(
            {"items": [{"id": "15550001111@c.us", "query": dict(request.query)}]}
        )

    async def _list_deliveries(self, _: web.Request) -> web.Response:
        return web.json_response({"items": self.deliveries})

    def _delivery(self, request: web.Request) -> Body | None:
        named = request.match_info["name"]
        return next((one for one in self.deliveries if one["name"] == named), None)

    async def _list_dead_letters(self, request: web.Request) -> web.Response:
        if self._delivery(request) is None:
            return _no_delivery()
        return web.json_response({"items": self.dead_letters})

    async def _replay_dead(self, request: web.Request) -> web.Response:
        if (delivery := self._delivery(request)) is None:
            return _no_delivery()
        count, self.dead_letters, delivery["deadLetters"] = len(self.dead_letters), [], 0
        return web.json_response({"count": count}, status=202)

    async def _replay(self, request: web.Request) -> web.Response:
        if self._delivery(request) is None:
            return _no_delivery()
        self.replayed.append(await request.json())
        return web.Response(status=202)

    async def _pause(self, request: web.Request) -> web.Response:
        if (delivery := self._delivery(request)) is None:
            return _no_delivery()
        pauses = request.match_info["verb"] == "pause"
        delivery["state"] = "Paused" if pauses else "Delivering"
        return web.Response(status=204)

    async def _media(self, request: web.Request) -> web.StreamResponse:
        """One range, and the headers of a session pod."""
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": '"file"',
            "Content-Type": "image/jpeg",
            "Content-Disposition": 'attachment; filename="a.jpg"',
            "X-Internal": "secret",
            **self.file_headers,
        }
        if request.headers.get("If-None-Match") == '"file"':
            return web.Response(status=304, headers=headers)
        size = len(self.file)
        start, end, status = 0, size, 200
        wanted = re.fullmatch("bytes=([0-9]{1,18})-([0-9]{0,18})", request.headers.get("Range", ""))
        if wanted is not None and request.headers.get("If-Range", '"file"') == '"file"':
            start, end, status = int(wanted[1]), min(int(wanted[2] or size) + 1, size), 206
            if start >= size:
                problem = {"title": "No such bytes", "status": 416, "detail": "too far"}
                headers = {"Content-Range": f"bytes */{size}"}
                return web.json_response(
                    problem, status=416, headers=headers, content_type="application/problem+json"
                )
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        await response.prepare(request)
        if self.torn:
            await response.write(self.file[start : end - 1])
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(self.file[start:end])
        return response

    async def _contact(self, request: web.Request) -> web.Response:
        return web.json_response({"id": request.match_info["id"]})

    async def _screenshot(self, _: web.Request) -> web.Response:
        if not self.live_view:
            return _no_view()
        headers = {"Content-Type": self.picture_type or "image/png", "X-Internal": "secret"}
        return web.Response(body=self.picture, headers=headers)

    async def _screencast(self, request: web.Request) -> web.StreamResponse:
        """Show the picture at each change and every tenth of a second."""
        if not self.live_view:
            return _no_view()
        kind = self.picture_type or "multipart/x-mixed-replace; boundary=picture"
        response = web.StreamResponse(headers={"Content-Type": kind, "X-Internal": "secret"})
        await response.prepare(request)
        await response.write(b"--picture\r\n")
        self.viewers += 1
        try:
            while not self.torn:
                repainted = self._repainted
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(self.picture)}\r\n\r\n"
                await response.write(head.encode() + self.picture + b"\r\n--picture\r\n")
                self.shown += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await repainted.wait()
            return response
        finally:
            self.viewers -= 1

    async def _logout(self, _: web.Request) -> web.Response:
        self.logouts += 1
        if self.unconfirmed:
            return _unconfirmed({})
        return web.json_response({})


async def _write(response: web.StreamResponse, event_id: str, kind: str, data: Body) -> None:
    await response.write(f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode())


def _unconfirmed(headers: dict[str, str]) -> web.Response:
    problem = {"title": "Outcome unknown", "status": 504, "detail": "no confirmation within 60 s"}
    return web.json_response(
        problem, status=504, headers=headers, content_type="application/problem+json"
    )


def _no_view() -> web.Response:
    detail = "nobody may look at the page of this session: spec.browser.liveView is off"
    problem = {"title": "Live view off", "status": 403, "detail": detail}
    return web.json_response(problem, status=403, content_type="application/problem+json")


def _no_delivery() -> web.Response:
    problem = {"title": "Delivery not found", "status": 404, "detail": "no such webhook or sink"}
    return web.json_response(problem, status=404, content_type="application/problem+json")
