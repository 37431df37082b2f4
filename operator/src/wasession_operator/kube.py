"""The few calls to the API server that the operator makes, with plain dicts."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from wasession_api.v1alpha1 import API_VERSION, PLURAL

from wasession_operator import metrics

Manifest = dict[str, Any]
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
TIMEOUT = 30.0  # seconds for one call
MAXIMUM_CONCURRENT = 50
CORE = "/api/v1/namespaces/{namespace}/{plural}"
CUSTOM = f"/apis/{API_VERSION}/namespaces/{{namespace}}/{{plural}}"


class Conflict(Exception):
    """The object exists already, or has changed."""


class Refused(Exception):
    """The API server does not accept the object, and says why."""


class Kube:
    """One client for the whole process; close it at the end."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._turn = asyncio.Semaphore(MAXIMUM_CONCURRENT)

    @classmethod
    async def connect(cls) -> Kube:
        """With the pod's service account in a cluster, else with the current kubeconfig."""
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config()  # type: ignore[no-untyped-call]
        return cls(client.ApiClient())

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, plural: str, namespace: str, name: str) -> Manifest | None:
        """The object, or None when there is none."""
        try:
            return await self._call("GET", f"{_path(CORE, plural, namespace)}/{name}")
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def list(self, plural: str, namespace: str | None, selector: str) -> list[Manifest]:
        """All objects with these labels, of one namespace or of all."""
        path = _path(CORE, plural, namespace) if namespace else f"/api/v1/{plural}"
        found = await self._call("GET", path, selector=selector)
        items: list[Manifest] = found["items"]
        return items

    async def create(self, plural: str, manifest: Manifest) -> Manifest:
        """Raises ``Conflict`` when the name is taken and ``Refused`` when the API server does not want the object."""
        path = _path(CORE, plural, manifest["metadata"]["namespace"])
        try:
            return await self._call("POST", path, manifest)
        except ApiException as error:
            if error.status == 409:
                raise Conflict(_message(error)) from None
            if error.status in (400, 403, 404, 422):
                raise Refused(_message(error)) from None
            raise

    async def patch(self, plural: str, namespace: str, name: str, patch: Manifest) -> None:
        """A merge patch; nothing when the object is gone. Raises ``Refused``."""
        await self._patch(f"{_path(CORE, plural, namespace)}/{name}", patch)

    async def patch_status(self, namespace: str, name: str, status: Manifest) -> None:
        """A merge patch of a session's status: a None takes a field away."""
        await self._patch(f"{_path(CUSTOM, PLURAL, namespace)}/{name}/status", {"status": status})

    async def delete(self, plural: str, namespace: str, name: str, uid: str, grace_seconds: int | None = None) -> None:
        """Deletes this very object; nothing when it is gone or another has its name."""
        body: Manifest = {"preconditions": {"uid": uid}}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", f"{_path(CORE, plural, namespace)}/{name}", body)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    async def token(self, namespace: str, name: str, owner: str | None) -> str | None:
        """The bearer token in a session's Secret; None when there is none, or it is of an earlier session."""
        secret = await self.get("secrets", namespace, name)
        if secret is None or "token" not in secret.get("data", {}):
            return None
        if owner not in [reference["uid"] for reference in secret["metadata"].get("ownerReferences", [])]:
            return None
        return base64.b64decode(secret["data"]["token"]).decode()

    async def _patch(self, path: str, patch: Manifest) -> None:
        try:
            await self._call("PATCH", path, patch, content_type=MERGE_PATCH)
        except ApiException as error:
            if error.status in (400, 403, 422):
                raise Refused(_message(error)) from None
            if error.status != 404:
                raise

    async def _call(
        self, verb: str, path: str, body: Manifest | None = None, selector: str | None = None, content_type: str = JSON
    ) -> Manifest:
        result = "error"
        try:
            async with self._turn, asyncio.timeout(TIMEOUT):
                request = await self._api.param_serialize(
                    verb,
                    path,
                    query_params=[("labelSelector", selector)] if selector else [],
                    header_params={"Accept": JSON, "Content-Type": content_type},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                response = await self._api.call_api(*request)
                content = await response.read()  # type: ignore[no-untyped-call]
                result = str(response.status)
                if not 200 <= response.status <= 299:
                    self._api.response_deserialize(response, {})  # raises what the status means
                answer: Manifest = json.loads(content)
                return answer
        finally:
            metrics.API_CALLS.labels(verb, result).inc()


def _path(template: str, plural: str, namespace: str) -> str:
    return template.format(namespace=namespace, plural=plural)


def _message(error: ApiException) -> str:
    """The API server's own sentence."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
