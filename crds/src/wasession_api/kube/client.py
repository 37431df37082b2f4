"""A small client of the Kubernetes API, for plain manifests."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import socket
import struct
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from prometheus_client import Counter
from pydantic_core import from_json

from wasession_api import tracing
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import (
    API_VERSION,
    BACKUP_KIND,
    BACKUP_PLURAL,
    CLASS_KIND,
    CLASS_PLURAL,
    KIND,
    PLURAL,
)

REST_CLIENT_REQUESTS = Counter(
    "wasession_rest_client_requests_total",
    "API requests, by verb and HTTP status.",
    ["verb", "result"],
)
Body = Manifest | list[Manifest]
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
TIMEOUT = 30.0  # seconds for one request
WATCH_TIMEOUT = 300  # seconds after which the API server ends a watch
OUTAGE = 150.0  # seconds without an answer; there is a bookmark of each watch about once a minute
WATCH_SILENCE = 90.0  # seconds; the API server sends a bookmark about once a minute
PAGE_SIZE = 100  # objects
MAX_CONCURRENT_REQUESTS = 50
# All that the API server says of a JSON patch whose ``test`` fails.
TEST_FAILED = "the server rejected our request due to an error in our request"


class Unavailable(Exception):
    """The API server did not answer; ``retry_after`` is in seconds, 0 when it did not say."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Fenced(Unavailable):
    """The write was not sent: whoever would have sent it may not act any more."""


class Conflict(Exception):
    """The object exists already, or has changed since it was read (409)."""


class Rejected(Exception):
    """The API server does not accept the request; the message is its explanation."""


class Forbidden(Rejected):
    """The API server does not let the client do that now (403); a right may be granted later."""


class ResourceExpired(Exception):
    """The resource version is too old to watch from or list with: list again (410)."""


@dataclass(frozen=True)
class Resource:
    """A resource of the API, such as pods."""

    kind: str
    plural: str
    prefix: str = "/api/v1"
    namespaced: bool = True

    @property
    def is_core(self) -> bool:
        return self.prefix == "/api/v1"

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of one object, or of all in a namespace or in the cluster."""
        scope = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{self.prefix}{scope}/{self.plural}" + (f"/{name}" if name else "")


PODS = Resource("Pod", "pods")
PVCS = Resource("PersistentVolumeClaim", "persistentvolumeclaims")
SECRETS = Resource("Secret", "secrets")
NODES = Resource("Node", "nodes", namespaced=False)
EVENTS = Resource("Event", "events")
LEASES = Resource("Lease", "leases", "/apis/coordination.k8s.io/v1")
NAMESPACES = Resource("Namespace", "namespaces", namespaced=False)
NETWORK_POLICIES = Resource("NetworkPolicy", "networkpolicies", "/apis/networking.k8s.io/v1")
VOLUME_SNAPSHOTS = Resource("VolumeSnapshot", "volumesnapshots", "/apis/snapshot.storage.k8s.io/v1")
SESSIONS = Resource(KIND, PLURAL, f"/apis/{API_VERSION}")
BACKUPS = Resource(BACKUP_KIND, BACKUP_PLURAL, f"/apis/{API_VERSION}")
CLASSES = Resource(CLASS_KIND, CLASS_PLURAL, f"/apis/{API_VERSION}", namespaced=False)


class Fence(Protocol):
    """Says for how long a client may still write."""

    def remaining(self) -> float:
        """Return the seconds that are left; not positive when there are none."""


_fence: ContextVar[Fence | None] = ContextVar("fence", default=None)  # of the present request


async def _check_fence(*_: object) -> None:
    """Raise ``Fenced`` unless the request may still be sent.

    aiohttp calls this at the last moment: when it has a connection, right before the first byte.
    """
    _require(_fence.get())


def _require(fence: Fence | None) -> None:
    """Raise ``Fenced`` if there is a fence and its time is over."""
    if fence is not None and fence.remaining() <= 0:
        raise Fenced("not sent: the time in which this client may act is over")


class Answers:
    """When the API server has answered. Times are monotonic."""

    def __init__(self) -> None:
        self.last = self.since = time.monotonic()  # ``since``: without an outage in between

    def note(self) -> None:
        """Note that the API server has just done what it was asked to."""
        now = time.monotonic()
        if now - self.last > OUTAGE:
            self.since = now
        self.last = now


class KubeClient:
    """A client of the API server: one connection pool per process, closed at the end.

    All requests raise ``Unavailable`` when there is no answer; writes raise ``Rejected`` too.
    ``field_manager`` is the name under which ``managedFields`` show what the process has written.
    """

    def __init__(self, api: client.ApiClient, field_manager: str) -> None:
        self._api = api
        self._field_manager = field_manager
        api.user_agent = field_manager
        self._semaphore = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self._fence: Fence | None = None
        self.answers = Answers()

    @classmethod
    async def connect(cls, field_manager: str, user_agent: str | None = None) -> KubeClient:
        """Connect with the pod's service account, or outside a cluster with the kubeconfig.

        The user agent, which audit logs show, is the field manager unless given.
        """
        configuration = client.Configuration()
        # No limit: each watch holds a connection, and requests have a semaphore.
        configuration.connection_pool_maxsize = 0
        # aiohttp looks proxies up in threads before each request: only where there are any.
        configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
        fencing = aiohttp.TraceConfig()
        fencing.on_request_chunk_sent.append(_check_fence)
        configuration.trace_configs = [fencing]
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        api = client.ApiClient(configuration)
        api.rest_client = _RestClient(configuration)
        connected = cls(api, field_manager)
        if user_agent is not None:
            connected._api.user_agent = user_agent
        return connected

    def fenced(self, fence: Fence) -> KubeClient:
        """Return this client with a limit in time: later writes raise ``Fenced``."""
        fenced = copy.copy(self)
        fenced._fence = fence
        return fenced

    def check_fence(self) -> None:
        """Raise ``Fenced`` if this client may not write any more."""
        _require(self._fence)

    def unqueued(self) -> KubeClient:
        """Return this client for requests that do not wait until others have their answers."""
        unqueued = copy.copy(self)
        unqueued._semaphore = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        return unqueued

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, metadata: bool = False
    ) -> Manifest | None:
        """Return the object, or only its metadata; None when it does not exist."""
        accept = METADATA if metadata else JSON
        try:
            return await self._call("get", resource.path(namespace, name), accept=accept)
        except _NotFound:
            return None

    async def serves(self, resource: Resource) -> bool:
        """Return whether the API server knows the resource: whether its CRD is installed."""
        try:
            known = await self._call("get", resource.prefix)
        except _NotFound:
            return False
        return any(one.get("name") == resource.plural for one in known.get("resources") or [])

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: str = "",
        *,
        metadata: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> AsyncGenerator[Manifest]:
        """Yield list objects with all objects that match, or with only their metadata.

        All pages have one resource version, from which a watch can go on. Raises
        ``ResourceExpired`` when it expires between two pages: list again from the start.
        """
        query = {"labelSelector": selector, "limit": str(page_size), "continue": ""}
        accept = METADATA_LIST if metadata else JSON
        while True:
            page = await self._call("list", resource.path(namespace), query=query, accept=accept)
            match page:
                case {"metadata": {"resourceVersion": str()}, "items": list() | None as items}:
                    yield {**page, "items": items or []}
                case _:
                    raise Unavailable(f"list {resource.path(namespace)}: the answer is no list")
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return

    async def watch(
        self, resource: Resource, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Manifest]:
        """Yield watch events after a resource version, until the stream ends or falls silent.

        The first event is a bookmark: the watch is open. Raises ``ResourceExpired`` when the
        version is too old.
        """
        query = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_TIMEOUT),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=WATCH_SILENCE)
        async with self._request(
            "watch", resource.path(namespace), query=query, timeout=timeout
        ) as response:
            yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
            with contextlib.suppress(aiohttp.SocketTimeoutError):
                async for line in response.content:
                    self.answers.note()
                    event = _to_event(from_json(line))
                    if event["type"] == "ERROR":
                        status = event["object"]
                        if status.get("code") == 410:
                            raise ResourceExpired
                        raise Unavailable(f"watch: {status.get('message')}")
                    yield event

    async def create(
        self, resource: Resource, manifest: Manifest, *, dry_run: bool = False
    ) -> Manifest:
        """Return the created object; raise ``Conflict`` when the name is taken.

        Unknown fields are rejected, not dropped. A dry run only checks, with all admission, whether
        the object would be accepted.
        """
        path = resource.path(manifest["metadata"]["namespace"])
        query = {"fieldValidation": "Strict", "dryRun": "All" if dry_run else ""}
        return await self._call("create", path, manifest, query)

    async def apply(
        self, resource: Resource, manifest: Manifest, sub: str = "", *, manager: str | None = None
    ) -> Manifest:
        """Apply an object on the server's side: create it, or set the fields that it gives.

        Fields that others have set are overwritten, fields that they alone have set stay. ``sub``
        is a subresource, such as ``/status``; ``manager`` a field manager for this request alone.
        """
        namespace = manifest["metadata"].get("namespace")
        path = resource.path(namespace, manifest["metadata"]["name"]) + sub
        query = {"force": "true", "fieldValidation": "Strict"}
        if manager is not None:
            query["fieldManager"] = manager
        try:
            # JSON is YAML too.
            return await self._call("patch", path, manifest, query, content_type=APPLY_PATCH)
        except _NotFound as error:  # its namespace, or the object with the subresource
            raise Rejected(str(error)) from None

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Body, sub: str = ""
    ) -> Manifest | None:
        """Patch an object; return it as it is then, or None when it does not exist.

        A dict is a merge patch (a None removes the field), a list is a JSON patch. Owner references
        of core objects are merged by their UID: it is a strategic merge patch. One that has a
        ``metadata.uid`` raises ``Conflict`` when the name is another object's by now. ``sub`` is a
        subresource, such as ``/status``.
        """
        content_type = JSON_PATCH
        if isinstance(patch, dict):
            content_type = STRATEGIC_MERGE_PATCH if resource.is_core else MERGE_PATCH
        path = resource.path(namespace, name) + sub
        try:
            return await self._call("patch", path, patch, content_type=content_type)
        except _NotFound:
            return None

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str,
        grace_seconds: int | None = None,
        version: str | None = None,
    ) -> Manifest | None:
        """Delete the object with this UID; return it, or None when it does not exist (any more).

        With a resource version, raises ``Conflict`` when the object has another one. A conflict
        may also come from a race with another writer: without a version, the object counts as
        deleted only if a read confirms it.
        """
        body: Manifest = {
            "preconditions": {"uid": uid}
            | ({"resourceVersion": version} if version is not None else {})
        }
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            return await self._call("delete", resource.path(namespace, name), body)
        except _NotFound:
            return None
        except Conflict as conflict:
            if version is not None:
                raise
            current = await self.get(resource, namespace, name)
            if current is not None and current["metadata"]["uid"] == uid:
                raise Unavailable(str(conflict)) from None
            return None

    async def _call(
        self,
        verb: str,
        path: str,
        body: Body | None = None,
        query: dict[str, str] | None = None,
        accept: str = JSON,
        content_type: str = JSON,
    ) -> Manifest:
        with tracing.child(
            f"{verb} {_plural(path)}", kind="CLIENT", attributes={"url.path": path}
        ) as span:
            async with (
                self._semaphore,
                self._request(verb, path, body, query, accept, content_type) as response,
            ):
                span.respond(response.status)
                result: Manifest = from_json(await response.read())
                return result

    @contextlib.asynccontextmanager
    async def _request(
        self,
        verb: str,
        path: str,
        body: Body | None = None,
        query: dict[str, str] | None = None,
        accept: str = JSON,
        content_type: str = JSON,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a successful response; raise the exception that any other one stands for."""
        result = "unanswered"
        query = query or {}
        if verb in ("create", "patch"):
            query = {"fieldManager": self._field_manager, **query}
        try:
            request = await self._api.param_serialize(
                METHODS[verb],
                path,
                query_params=[(key, value) for key, value in query.items() if value],
                header_params={"Accept": accept, "Content-Type": content_type},
                auth_settings=["BearerToken"],
            )
            # The body is plain JSON: skip the client's sanitizing, which walks all of it.
            sent = await self._send(request[:3], body, timeout)
            response: aiohttp.ClientResponse = sent.response
            async with response:
                result = str(response.status)
                if response.status < 500:
                    self.answers.note()
                if response.status >= 300:
                    error = _error(response, await response.text())
                    collection = verb in ("list", "watch")
                    if isinstance(error, _NotFound) and collection:
                        error = Rejected(str(error))  # the kind: its CRD is not installed
                    if isinstance(error, ResourceExpired) and not collection:
                        error = Unavailable(str(error))  # says something in between
                    raise error
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if isinstance(error.__cause__, Fenced):
                raise error.__cause__ from None
            raise Unavailable(f"{verb} {path}: {type(error).__name__} {error}".rstrip()) from error
        finally:
            REST_CLIENT_REQUESTS.labels(verb, result).inc()

    async def _send(
        self,
        request: tuple[str, str, dict[str, str]],
        body: Body | None,
        timeout: aiohttp.ClientTimeout | None,
    ) -> RESTResponse:
        """Send a request; a write not after the fence, nor waiting longer for the response."""
        total = TIMEOUT
        fence = self._fence if body is not None else None
        if fence is not None:
            self.check_fence()
            total = min(total, fence.remaining())
        token = _fence.set(fence)
        try:
            return await self._api.call_api(
                *request, body, _request_timeout=timeout or aiohttp.ClientTimeout(total=total)
            )
        finally:
            _fence.reset(token)


class _RestClient(RESTClientObject):
    """Drops what it has not sent yet when a connection is closed.

    Otherwise the kernel goes on trying: a write that was given up because of a broken network would
    reach the API server when the network works again, and its replica may not act any more by then.
    """

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self.maxsize, ssl=self.ssl_context, socket_factory=_open_socket
        )


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return opened


METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}


def _plural(path: str) -> str:
    """Return the resource of a request's path, and its subresource if it is for one."""
    parts = path.removeprefix("/api/v1/").removeprefix("/apis/").split("/")
    parts = parts if path.startswith("/api/v1/") else parts[2:]
    parts = parts[2:] if parts[:1] == ["namespaces"] and len(parts) > 2 else parts
    return "/".join([*parts[:1], *parts[2:]]) or "resources"


class _NotFound(Exception):
    """The object does not exist (404)."""


def _to_event(payload: Any) -> Manifest:
    """Return a watch event; raise ``ValueError`` for anything else."""
    match payload:
        case {"type": "ERROR", "object": dict()} | {
            "type": str(),
            "object": {"metadata": {"resourceVersion": str()}},
        }:
            event: Manifest = payload
            return event
    raise ValueError("not a watch event")


def _error(response: aiohttp.ClientResponse, body: str) -> Exception:
    """Return the exception that an error response stands for, with the API server's message."""
    try:
        status = from_json(body)
        message = str(status["message"])
        causes = (status.get("details") or {}).get("causes") or []
        fields = {cause.get("field") for cause in causes}
    except (ValueError, KeyError, TypeError, AttributeError):
        message, fields = f"{response.status} {response.reason}", set()
    match response.status:
        case 422 if "metadata.uid" in fields or message == TEST_FAILED:
            return Conflict(message)
        case 404 if response.method != "POST":
            return _NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return ResourceExpired(message)
        case 403:
            return Forbidden(message)
        case 400 | 404 | 405 | 413 | 415 | 422:
            return Rejected(message)
        case _:
            return Unavailable(message, _seconds(response.headers.get("Retry-After", "")))


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() else 0.0
