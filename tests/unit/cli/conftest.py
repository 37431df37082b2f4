"""A small API server with sessions, and a session pod behind its port-forward, in a thread."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import yaml
from aiohttp import BodyPartReader, web
from support.loopback import unused_port
from wasession_api.v1alpha1 import (
    API_VERSION,
    BACKUP_KIND,
    BACKUP_PLURAL,
    CLASS_KIND,
    CLASS_PLURAL,
    KIND,
    PLURAL,
)
from wasession_cli.main import run

Manifest = dict[str, Any]
T = TypeVar("T")
USER_TOKEN = "token-of-the-kubeconfig"
POD_TOKEN = "token-of-the-session-pod-and-of-no-other"
NAMESPACE = "team"
LIST = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}"
BACKUPS = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{BACKUP_PLURAL}"
CREATED_AT = "2026-11-24T10:00:00Z"
COLUMNS = [
    {"name": "Name", "type": "string", "priority": 0},
    {"name": "Phase", "type": "string", "priority": 0},
    {"name": "Valid", "type": "boolean", "priority": 0},
    {"name": "Pod", "type": "string", "priority": 1},
]


class Call(NamedTuple):
    """A request that was made."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


def make_session(
    name: str, phase: str = "Ready", *, suspend: bool = False, **status: Any
) -> Manifest:
    """A session as the operator leaves it."""
    since = "2026-11-24T10:00:00Z"
    has_pod = phase not in ("Suspended", "Pending", "Terminating")
    conditions = [
        {
            "type": kind,
            "status": str(truth),
            "reason": phase,
            "message": "",
            "lastTransitionTime": since,
        }
        for kind, truth in (("Ready", phase == "Ready"), ("PodReady", has_pod))
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "managedFields": [{"manager": "operator"}],
        },
        "spec": {"owner": "user-42", "suspend": suspend},
        "status": {
            "phase": phase,
            "conditions": conditions,
            **({"podName": f"wasession-{name}"} if has_pod else {}),
            **status,
        },
    }


def make_backup(name: str, session: str, phase: str = "Completed", **status: Any) -> Manifest:
    """A backup as the operator leaves it."""
    source = {"cluster": "here", "namespace": NAMESPACE, "sessionName": session}
    source |= {"sessionUID": f"uid-{session}", "loginID": f"uid-{session}"}
    source |= {"clientId": f"client-{session}", "owner": "user-42"}
    made = {"takenAt": CREATED_AT, "size": 5_000_000, "source": source}
    return {
        "apiVersion": API_VERSION,
        "kind": BACKUP_KIND,
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": CREATED_AT},
        "spec": {"sessionName": session},
        "status": {"phase": phase, **(made if phase == "Completed" else {}), **status},
    }


@dataclass
class Pod:
    """A session pod's HTTP API, as far as the commands use it."""

    token: str = POD_TOKEN
    refused: list[str] = field(default_factory=list)  # what was shown in place of the token
    calls: list[Call] = field(default_factory=list)
    report: Manifest = field(default_factory=dict)
    code: str | None = None
    method: str = "QRCode"
    # What the next calls of an endpoint do in place of the usual: an answer, or None to break the
    # connection.
    faults: dict[str, list[Callable[[], web.Response] | None]] = field(default_factory=dict)
    screenshot: bytes = b"\x89PNG\r\n\x1a\n a picture"
    deliveries: list[Manifest] = field(default_factory=list)
    _sent: dict[str, Manifest] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    connections: list[web.Request] = field(default_factory=list)

    def say(self, phase: str, reason: str = "PageLoading", **fields: Any) -> None:
        """The report from now on."""
        seq = self.report.get("seq", 0) + 1
        self.report = {
            "clientId": "sales",
            "startedAt": "2026-11-24T10:00:00Z",
            "seq": seq,
            "phase": phase,
            "reason": reason,
        }
        self.report |= fields
        self._changed.set()
        self._changed = asyncio.Event()

    def offer(
        self,
        code: str,
        method: str = "QRCode",
        attempt: int = 1,
        expires_at: str = "2099-01-01T00:00:00Z",
    ) -> None:
        """A code to scan or type from now on."""
        self.code, self.method = code, method
        pairing = {
            "available": True,
            "method": method,
            "attempt": attempt,
            "expiresAt": expires_at,
        }
        self.say("Authenticating", "WaitingForScan", pairing=pairing)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._check], client_max_size=2**24)
        app.router.add_get("/v1/events", self._events)
        app.router.add_get("/v1/pairing", self._pairing)
        app.router.add_post("/v1/pairing/refresh", self._refresh)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/logout", self._logout)
        app.router.add_get("/v1/screenshot", self._screenshot)
        app.router.add_get("/v1/deliveries", self._deliveries)
        app.router.add_get("/v1/deliveries/{name}/dead-letters", self._dead_letters)
        app.router.add_post("/v1/deliveries/{name}/dead-letters/replay", self._replay_dead_letters)
        app.router.add_post("/v1/deliveries/{name}/{verb:pause|resume|replay}", self._delivery)
        return app

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        shown = request.headers["Authorization"].removeprefix("Bearer ")
        if shown != self.token:
            self.refused.append(shown)
            return problem(401, "the session's bearer token is needed")
        form = request.content_type.startswith("multipart/")
        body: Any = await (_form(request) if form else request.read())
        self.calls.append(
            Call(request.method, request.path, dict(request.query), dict(request.headers), body)
        )
        faults = self.faults.get(request.path)
        if faults:
            fault = faults.pop(0)
            if fault is not None:
                return fault()
            assert request.transport is not None
            if request.path == "/v1/messages":  # taken, but the answer is lost
                await handler(request)
            request.transport.abort()
        response: web.StreamResponse = await handler(request)
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.connections.append(request)
        while True:
            changed = self._changed
            await response.write(b": a comment\n\n")
            await response.write(
                f"id: x-1\nevent: state\ndata: {json.dumps(self.report)}\n\n".encode()
            )
            await changed.wait()

    async def _pairing(self, _: web.Request) -> web.Response:
        if self.code is None:
            return problem(404, "no phone can be linked now")
        return web.json_response(self.report["pairing"] | {"code": self.code})

    async def _refresh(self, _: web.Request) -> web.Response:
        self.offer("2@a-new-code,after,the,last,round")
        return web.json_response({}, status=202)

    async def _messages(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        replayed = key in self._sent
        message_id = f"true_15550001111@c.us_3EB0{len(self._sent):04}"
        message = self._sent.setdefault(
            key,
            {
                "id": message_id,
                "to": "15550001111@c.us",
                "ack": 1,
                "sentAt": "2026-11-24T10:00:00Z",
            },
        )
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        return web.json_response(message, status=201, headers=headers)

    async def _logout(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _screenshot(self, _: web.Request) -> web.Response:
        return web.Response(body=self.screenshot, content_type="image/png")

    async def _deliveries(self, _: web.Request) -> web.Response:
        return web.json_response({"items": self.deliveries})

    async def _dead_letters(self, _: web.Request) -> web.Response:
        letter = {"eventId": "5c1f0e7a9b3d4c62-7", "kind": "message", "attempts": 5}
        letter |= {"at": "2026-11-24T10:00:00Z", "error": "HTTP 422"}
        return web.json_response({"items": [letter]})

    async def _replay_dead_letters(self, _: web.Request) -> web.Response:
        return web.json_response({"count": 3}, status=202)

    async def _delivery(self, _: web.Request) -> web.Response:
        return web.json_response({})


async def _form(request: web.Request) -> dict[str, Any]:
    """A form's fields; a file as its name and content."""
    fields: dict[str, Any] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        content = bytes(await part.read())
        fields[part.name or ""] = (part.filename, content) if part.filename else content.decode()
    return fields


def problem(status: int, detail: str) -> web.Response:
    body = {
        "type": "about:blank",
        "title": "Problem",
        "status": status,
        "detail": detail,
        "phase": "Ready",
    }
    return web.json_response(body, status=status, content_type="application/problem+json")


class Server:
    """An API server for one namespace: lists, Tables, watches, changes, logs, port-forwards."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.sessions: dict[str, Manifest] = {}
        self.backups: dict[str, Manifest] = {}
        self.classes: list[Manifest] = []
        self.events: list[Manifest] = []
        self.log = b'{"message": "started"}\n'
        self.forbidden: set[str] = set()  # kinds of requests, such as "secrets"
        self.forward_error = ""  # what kubelet says in place of a connection
        self.tokens = {"token": POD_TOKEN}  # in the session's Secret
        self.pod = Pod()
        self._version = 100
        self._watchers: dict[str, set[asyncio.Queue[Manifest]]] = {KIND: set(), BACKUP_KIND: set()}
        self._called = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._port, self._pod_port = unused_port(), unused_port()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._runners = self.do(self._start())

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Runs something in the server's thread."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    def put(self, session: Manifest) -> None:
        """Adds or replaces a session or a backup, and tells the watches."""

        async def put() -> None:
            self._put(session)

        self.do(put())

    def change_pod(self, change: Callable[[Pod], None]) -> None:
        async def apply() -> None:
            change(self.pod)

        self.do(apply())

    def drop_connections(self) -> None:
        """Ends the pod's connections, as its death does."""

        async def drop() -> None:
            for request in self.pod.connections:
                if request.transport is not None:
                    request.transport.abort()
            self.pod.connections.clear()

        self.do(drop())

    def kubeconfig(self, context: str = "here", namespace: str = NAMESPACE) -> Manifest:
        server = f"http://127.0.0.1:{self._port}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": context, "cluster": {"server": server}}],
            "users": [{"name": context, "user": {"token": USER_TOKEN}}],
            "contexts": [
                {
                    "name": context,
                    "context": {"cluster": context, "user": context, "namespace": namespace},
                }
            ],
        }

    def wait_for_calls(self, path: str, count: int) -> None:
        """Return once ``path`` has been requested so often."""

        async def wait() -> None:
            async with asyncio.timeout(30):
                while sum(call.path == path for call in self.calls) < count:
                    self._called.clear()
                    await self._called.wait()

        self.do(wait())

    def stop(self) -> None:
        async def stop() -> None:
            for runner in self._runners:
                await runner.cleanup()

        self.do(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)

    # --- the server's side ------------------------------------------------------------------------

    async def _start(self) -> list[web.AppRunner]:
        app = web.Application(middlewares=[self._check])
        app.router.add_get(LIST, self._list)
        app.router.add_get(f"/apis/{API_VERSION}/{PLURAL}", self._list)
        app.router.add_get(f"/apis/{API_VERSION}/{CLASS_PLURAL}", self._list_classes)
        of_class = f"/apis/{API_VERSION}/{CLASS_PLURAL}/{{name}}"
        app.router.add_get(of_class, self._get_class)
        app.router.add_patch(of_class, self._change_class)
        app.router.add_put(of_class, self._change_class)
        app.router.add_get(BACKUPS, self._list)
        for path in (LIST, BACKUPS):
            app.router.add_get(path + "/{name}", self._get)
            app.router.add_post(path, self._create)
            app.router.add_patch(path + "/{name}", self._patch)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/events", self._list_events)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{{name}}", self._secret)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods/{{name}}/log", self._logs)
        app.router.add_get(
            f"/api/v1/namespaces/{NAMESPACE}/pods/{{name}}/portforward", self._port_forward
        )
        runners = []
        for application, port in ((app, self._port), (self.pod.application(), self._pod_port)):
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            runners.append(runner)
        return runners

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.calls.append(
            Call(request.method, request.path, dict(request.query), dict(request.headers), body)
        )
        self._called.set()
        if request.headers.get("Authorization") != f"Bearer {USER_TOKEN}":
            return refusal(401, "Unauthorized")
        if any(kind in request.path for kind in self.forbidden):
            return refusal(403, f'User "somebody" cannot do that: {request.path}')
        response: web.StreamResponse = await handler(request)
        return response

    def _put(self, obj: Manifest) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        objects = self.backups if obj["kind"] == BACKUP_KIND else self.sessions
        kind = "MODIFIED" if obj["metadata"]["name"] in objects else "ADDED"
        objects[obj["metadata"]["name"]] = obj = json.loads(json.dumps(obj))
        for watcher in self._watchers[obj["kind"]]:
            watcher.put_nowait({"type": kind, "object": obj})

    def _of(self, request: web.Request) -> tuple[str, dict[str, Manifest]]:
        """The kind that a request is about, and its objects."""
        if BACKUP_PLURAL in request.path:
            return BACKUP_KIND, self.backups
        return KIND, self.sessions

    async def _list(self, request: web.Request) -> web.StreamResponse:
        as_table = "as=Table" in request.headers["Accept"]
        if "watch" in request.query:
            return await self._watch(request, as_table)
        kind, objects = self._of(request)
        items = list(objects.values())
        metadata = {"resourceVersion": str(self._version)}
        if as_table:
            return web.json_response(
                _table(items) | {"metadata": metadata, "columnDefinitions": COLUMNS}
            )
        return web.json_response(
            {"apiVersion": API_VERSION, "kind": f"{kind}List", "metadata": metadata, "items": items}
        )

    async def _list_classes(self, request: web.Request) -> web.Response:
        if "as=Table" in request.headers["Accept"]:
            rows = [
                {"cells": [item["metadata"]["name"]], "object": {"metadata": item["metadata"]}}
                for item in self.classes
            ]
            return web.json_response({"columnDefinitions": COLUMNS[:1], "rows": rows})
        return web.json_response({"kind": f"{CLASS_KIND}List", "items": self.classes})

    def _class(self, request: web.Request) -> Manifest | None:
        name = request.match_info["name"]
        return next((one for one in self.classes if one["metadata"]["name"] == name), None)

    async def _get_class(self, request: web.Request) -> web.Response:
        if (found := self._class(request)) is None:
            return refusal(404, "whatsappsessionclasses.wasession.dev not found")
        return web.json_response(found)

    async def _change_class(self, request: web.Request) -> web.Response:
        found, change = self._class(request), await request.json()
        assert found is not None
        if request.method == "PATCH":
            assert request.content_type == "application/merge-patch+json"
            _merge(found, change)
        elif change["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return refusal(409, "the object has been modified")
        else:
            found.clear()
            found.update(change)
        return web.json_response(found)

    async def _watch(self, request: web.Request, as_table: bool) -> web.StreamResponse:
        queue: asyncio.Queue[Manifest] = asyncio.Queue()
        seen = int(request.query["resourceVersion"])
        kind, objects = self._of(request)
        for obj in objects.values():
            if int(obj["metadata"]["resourceVersion"]) > seen:
                queue.put_nowait({"type": "MODIFIED", "object": obj})
        self._watchers[kind].add(queue)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            event = await queue.get()
            if as_table:
                event = event | {"object": _table([event["object"]])}
            await response.write(json.dumps(event).encode() + b"\n")

    async def _get(self, request: web.Request) -> web.Response:
        name, (kind, objects) = request.match_info["name"], self._of(request)
        if name not in objects:
            return refusal(404, f'{kind.lower()}s.wasession.dev "{name}" not found')
        return web.json_response(objects[name])

    async def _create(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/json"
        (kind, objects), created = self._of(request), await request.json()
        assert (created["apiVersion"], created["kind"]) == (API_VERSION, kind)
        metadata, name = created["metadata"], created["metadata"]["name"]
        if name in objects:
            return refusal(409, f'{kind.lower()}s.wasession.dev "{name}" already exists')
        metadata |= {"namespace": NAMESPACE, "uid": f"uid-{name}"}
        metadata["creationTimestamp"] = CREATED_AT
        self._put(created)
        return web.json_response(created, status=201)

    async def _patch(self, request: web.Request) -> web.Response:
        name, (kind, objects) = request.match_info["name"], self._of(request)
        if name not in objects:
            return refusal(404, f'{kind.lower()}s.wasession.dev "{name}" not found')
        assert request.content_type == "application/merge-patch+json"
        merged, patch = json.loads(json.dumps(objects[name])), await request.json()
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in (None, merged["metadata"]["resourceVersion"]):
            return refusal(409, "the object has been modified")
        _merge(merged, patch)
        self._put(merged)
        return web.json_response(merged)

    async def _list_events(self, _: web.Request) -> web.Response:
        return web.json_response({"items": self.events})

    async def _secret(self, request: web.Request) -> web.Response:
        data = {
            key: base64.b64encode(token.encode()).decode() for key, token in self.tokens.items()
        }
        name = request.match_info["name"]
        if not name.startswith("wasession-token-"):
            raise web.HTTPNotFound
        owners = [{"uid": f"uid-{name.removeprefix('wasession-token-')}"}]
        return web.json_response(
            {"metadata": {"name": name, "ownerReferences": owners}, "data": data}
        )

    async def _logs(self, _: web.Request) -> web.Response:
        return web.Response(body=self.log)

    async def _port_forward(self, request: web.Request) -> web.WebSocketResponse:
        """As kubelet does it: a connection per WebSocket, first the port on both channels."""
        assert request.query["ports"] == "8080"
        websocket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await websocket.prepare(request)
        assert websocket.ws_protocol == "v4.channel.k8s.io"
        for channel in (0, 1):
            await websocket.send_bytes(bytes([channel]) + (8080).to_bytes(2, "little"))
        if self.forward_error:
            await websocket.send_bytes(b"\x01" + self.forward_error.encode())
            await websocket.close()
            return websocket
        reader, writer = await asyncio.open_connection("127.0.0.1", self._pod_port)

        async def down() -> None:
            while chunk := await reader.read(1000):
                await websocket.send_bytes(b"\x00" + chunk)
            await websocket.close()

        pump = asyncio.create_task(down())
        async for message in websocket:
            assert message.data[0] == 0
            writer.write(message.data[1:])
            await writer.drain()
        pump.cancel()
        writer.close()
        return websocket


def _table(items: list[Manifest]) -> Manifest:
    rows = [
        {
            "cells": [
                item["metadata"]["name"],
                item["status"]["phase"],
                item["status"].get("sessionValid"),
                item["status"].get("podName"),
            ],
            "object": {"kind": "PartialObjectMetadata", "metadata": item["metadata"]},
        }
        for item in items
    ]
    return {"apiVersion": "meta.k8s.io/v1", "kind": "Table", "rows": rows}


def _merge(into: Manifest, patch: Manifest) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def refusal(status: int, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "message": message, "code": status}, status=status
    )


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The API server, and KUBECONFIG naming it."""
    server = Server()
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(server.kubeconfig()))
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield server
    server.stop()


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs ``kubectl wasession ...``; no command ever prints a token."""

    def execute(*arguments: str) -> Result:
        code = run(list(arguments))
        out, err = capfd.readouterr()
        assert "token-of-the-session-pod" not in out + err
        assert USER_TOKEN not in out + err
        return Result(code, out, err)

    return execute
