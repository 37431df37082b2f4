"""A minimal client of the API server for tests: plain dicts, exact watches."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

Manifest = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
USER_AGENT = "tests"  # also the field manager
RETRY_AFTER = 0.1  # seconds until a watch reconnects
GROUPS = {
    "whatsappsessions": "/apis/wasession.dev/v1alpha1",
    "whatsappsessionclasses": "/apis/wasession.dev/v1alpha1",
    "whatsappsessionbackups": "/apis/wasession.dev/v1alpha1",
    "volumesnapshots": "/apis/snapshot.storage.k8s.io/v1",
    "statefulsets": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "clusterroles": "/apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "storageclasses": "/apis/storage.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "validatingadmissionpolicies": "/apis/admissionregistration.k8s.io/v1",
    "validatingadmissionpolicybindings": "/apis/admissionregistration.k8s.io/v1",
}


class ApiError(Exception):
    """An error response of the API server."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def path(
    plural: str,
    namespace: str | None = None,
    name: str | None = None,
    subresource: str | None = None,
) -> str:
    """Return the URL path of a collection, an object or its subresource."""
    parts = [
        GROUPS.get(plural, "/api/v1"),
        *(["namespaces", namespace] if namespace else []),
        plural,
    ]
    return "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])


def context(directory: Path, user: str = "admin") -> ssl.SSLContext:
    """Return a context with a user's certificate that trusts the cluster's authority."""
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / f"{user}.crt", directory / f"{user}.key")
    return context


class Api:
    """A client of the API server at ``base``; close it at the end."""

    def __init__(self, base: str, connector: aiohttp.TCPConnector) -> None:
        self.http = aiohttp.ClientSession(
            base,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": USER_AGENT},
        )

    async def close(self) -> None:
        await self.http.close()

    async def call(
        self,
        verb: str,
        where: str,
        body: Any = None,
        kind: str = "application/json",
        user: str | None = None,
    ) -> Manifest:
        """Send one request and return the response's body; raises ``ApiError``.

        It has the rights of ``user``, if given.
        """
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": kind} | ({"Impersonate-User": user} if user else {})
        timeout = aiohttp.ClientTimeout(total=60)
        async with self.http.request(
            verb, where, data=data, headers=headers, timeout=timeout
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, text)
            payload: Manifest = json.loads(text) if text.startswith("{") else {"text": text}
            return payload

    async def get(self, plural: str, namespace: str | None, name: str) -> Manifest:
        return await self.call("GET", path(plural, namespace, name))

    async def list(self, plural: str, namespace: str | None = None) -> Manifest:
        return await self.call("GET", path(plural, namespace))

    async def create(
        self, plural: str, manifest: Manifest, subresource: str | None = None
    ) -> Manifest:
        metadata = manifest["metadata"]
        name = metadata["name"] if subresource else None
        return await self.call(
            "POST", path(plural, metadata.get("namespace"), name, subresource), manifest
        )

    async def patch(
        self,
        plural: str,
        namespace: str | None,
        name: str,
        patch: Manifest,
        subresource: str | None = None,
    ) -> Manifest:
        """Apply a merge patch."""
        return await self.call(
            "PATCH", path(plural, namespace, name, subresource), patch, MERGE_PATCH
        )

    async def delete(self, plural: str, namespace: str | None, name: str, **options: Any) -> None:
        await self.call("DELETE", path(plural, namespace, name), options)

    async def watch(
        self, plural: str, resource_version: str, namespace: str | None = None
    ) -> AsyncIterator[Manifest]:
        """Yield every event after this version, in order, without end.

        The API server ends the stream of a slow reader; it is then reopened after the last event.
        Raises ``ApiError`` if that version has expired, so no event is ever missed silently.
        """
        options = "watch=true&timeoutSeconds=7200&allowWatchBookmarks=true"
        while True:
            url = f"{path(plural, namespace)}?{options}&resourceVersion={resource_version}"
            try:
                async with self.http.get(url, read_bufsize=2**22) as stream:
                    if stream.status >= 400:
                        raise ApiError(stream.status, await stream.text())
                    async for line in stream.content:
                        if not line.endswith(b"\n"):
                            break  # the connection broke in the middle of an event
                        event: Manifest = json.loads(line)
                        if event["type"] == "ERROR":
                            raise ApiError(
                                event["object"].get("code", 0), event["object"].get("message", "")
                            )
                        resource_version = event["object"]["metadata"]["resourceVersion"]
                        yield event
            except aiohttp.ClientError:
                await asyncio.sleep(RETRY_AFTER)
