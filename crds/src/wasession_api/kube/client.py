"""The calls to the API server that operator and gateway make, with plain dicts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import aiohttp
from kubernetes.aio import client, config
from prometheus_client import Counter
from pydantic_core import from_json

from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import API_VERSION, PLURAL

REST_CLIENT_REQUESTS = Counter(
    "wasession_rest_client_requests_total",
    "Calls to the API server, by verb and HTTP status.",
    ["verb", "result"],
)
Body = Manifest | list[Manifest]
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
TIMEOUT = 30.0  # seconds for one call
WATCH_ENDS = 300  # seconds after which the API server ends a watch
WATCH_SILENCE = 90.0  # seconds; the API server sends a bookmark about every minute
CHUNK = 100  # objects in one answer to a list
MAXIMUM_CONCURRENT = 50


class Unavailable(Exception):
    """The API server could not answer now; ``retry_after`` is in seconds, where it said so."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Conflict(Exception):
    """The name is taken, or the object has changed."""


class Rejected(Exception):
    """The API server does not accept the object, and says why."""


class ResourceExpired(Exception):
    """The version to watch from is too old: everything has to be listed again."""


@dataclass(frozen=True)
class Resource:
    """A kind of object, by its place in the API."""

    kind: str
    plural: str
    prefix: str = "/api/v1"
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Of one object, or of all: in one namespace, or in the cluster."""
        place = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{self.prefix}{place}/{self.plural}" + (f"/{name}" if name else "")


PODS = Resource("Pod", "pods")
PVCS = Resource("PersistentVolumeClaim", "persistentvolumeclaims")
SECRETS = Resource("Secret", "secrets")
NODES = Resource("Node", "nodes", namespaced=False)
EVENTS = Resource("Event", "events")
SESSIONS = Resource("WhatsAppSession", PLURAL, f"/apis/{API_VERSION}")


class KubeClient:
    """One client for the whole process; close it at the end."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._turn = asyncio.Semaphore(MAXIMUM_CONCURRENT)
        self.answered_at = time.monotonic()  # when the API server answered last

    @classmethod
    async def connect(cls) -> KubeClient:
        """With the pod's service account in a cluster, else with the current kubeconfig."""
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = (
            0  # no limit: watches hold connections, and calls have a limit of their own
        )
        # aiohttp asks two threads for proxies before each call: only where there are any.
        configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    # All calls raise ``Unavailable``; the ones that write raise ``Rejected`` too.

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None when there is none."""
        try:
            return await self._call("get", resource.path(namespace, name))
        except _NotFound:
            return None

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: str = "",
        *,
        metadata: bool = False,
    ) -> AsyncGenerator[Manifest]:
        """All objects with these labels, or only their metadata, as list objects whose version a watch can go on from.

        They come in parts, so that they need not all be in memory at once; all parts are of one
        version. Raises ``ResourceExpired`` when that is too old already, and the list has to be
        begun anew.
        """
        query = {"labelSelector": selector, "limit": str(CHUNK), "continue": ""}
        accept = ONLY_METADATA if metadata else JSON
        while True:
            found = await self._call("list", resource.path(namespace), query=query, accept=accept)
            query["continue"] = found["metadata"].get("continue", "")
            yield {**found, "items": found["items"] or []}
            if not query["continue"]:
                return

    async def watch(
        self, resource: Resource, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Manifest]:
        """Watch events after a version, until the stream ends or falls silent; the first is a bookmark that says it is open.

        Raises ``ResourceExpired`` when the version is too old.
        """
        query = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
        }
        query["timeoutSeconds"] = str(WATCH_ENDS)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=WATCH_SILENCE)
        async with self._request(
            "watch", resource.path(namespace), query=query, timeout=timeout
        ) as response:
            yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
            with contextlib.suppress(aiohttp.SocketTimeoutError):
                async for line in response.content:
                    self.answered_at = time.monotonic()
                    event: Manifest = from_json(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        if status.get("code") == 410:
                            raise ResourceExpired
                        raise Unavailable(f"watch: {status.get('message')}")
                    yield event

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        """The created object. Raises ``Conflict`` when the name is taken."""
        return await self._call(
            "create", resource.path(manifest["metadata"]["namespace"]), manifest
        )

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Body, sub: str = ""
    ) -> Manifest | None:
        """A merge patch, where a None takes a field away, or a list of JSON patch operations.

        Returns the object after it, or None when it is gone.
        """
        try:
            return await self._call("patch", resource.path(namespace, name) + sub, patch)
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
        """Deletes this very object; what the API server says of it, or None when it is gone or another has its name.

        A conflict may also come of a race with another writer: it is believed only when the object
        is really another one. With a version, raises ``Conflict`` when the object is no longer at
        it.
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
            found = await self.get(resource, namespace, name)
            if found is not None and found["metadata"]["uid"] == uid:
                raise Unavailable(str(conflict)) from None
            return None

    async def _call(
        self,
        verb: str,
        path: str,
        body: Body | None = None,
        query: dict[str, str] | None = None,
        accept: str = JSON,
    ) -> Manifest:
        async with self._turn, self._request(verb, path, body, query, accept) as response:
            answer: Manifest = from_json(await response.read())
            return answer

    @contextlib.asynccontextmanager
    async def _request(
        self,
        verb: str,
        path: str,
        body: Body | None = None,
        query: dict[str, str] | None = None,
        accept: str = JSON,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer; raises what any other one means."""
        result = "unanswered"
        try:
            request = await self._api.param_serialize(
                METHODS[verb],
                path,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": accept, "Content-Type": _content_type(verb, body)},
                auth_settings=["BearerToken"],
            )
            # The body is plain JSON already, and goes past the client's search for what is not.
            timeout = timeout or aiohttp.ClientTimeout(total=TIMEOUT)
            sent = await self._api.call_api(*request[:3], body, _request_timeout=timeout)
            response: aiohttp.ClientResponse = sent.response
            async with response:
                result, self.answered_at = str(response.status), time.monotonic()
                if response.status >= 300:
                    raise _error(response, await response.text())
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"{verb} {path}: {type(error).__name__} {error}".rstrip()) from error
        finally:
            REST_CLIENT_REQUESTS.labels(verb, result).inc()


METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}


def _content_type(verb: str, body: Body | None) -> str:
    if verb != "patch":
        return JSON
    return JSON_PATCH if isinstance(body, list) else MERGE_PATCH


class _NotFound(Exception):
    """There is no such object."""


def _error(response: aiohttp.ClientResponse, body: str) -> Exception:
    """What an answer means that is no success, with the API server's own sentence."""
    try:
        message = str(from_json(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{response.status} {response.reason}"
    match response.status:
        case 404 if response.method != "POST":
            return _NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return ResourceExpired(message)
        case 400 | 403 | 404 | 405 | 413 | 415 | 422:
            return Rejected(message)
        case _:
            return Unavailable(message, _seconds(response.headers.get("Retry-After", "")))


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() else 0.0
