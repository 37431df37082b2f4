"""Access to the cluster with the user's kubeconfig: sessions, backups, Events, logs, pods."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
import yaml
from kubernetes.aio import client, config
from wasession_api.kube.manifests import Manifest
from wasession_api.names import token_secret_name
from wasession_api.session_pod import PORT
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import API_VERSION, BACKUP_PLURAL, CLASS_PLURAL, PLURAL

from wasession_cli import formatting, portforward
from wasession_cli.exits import Conflict, Failure, Forbidden, NotFound, Unreachable
from wasession_cli.portforward import PortForwardConnector
from wasession_cli.session_pod import SessionPod

CONTAINER = "session"
FIELD_MANAGER = "kubectl-wasession"
CONTENT_TYPES = {
    "PATCH": "application/merge-patch+json",
    "POST": "application/json",
    "PUT": "application/json",
}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
TIMEOUT = aiohttp.ClientTimeout(total=30)
STREAM = aiohttp.ClientTimeout(total=None, sock_connect=30)
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ResourceExpired(Exception):
    """The resource version is too old to watch from: list again (410)."""


@dataclass
class Target:
    """The cluster and namespace to use; None stands for the kubeconfig's choice."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


class Cluster:
    """A client of the API server, for one namespace. Raises ``Failure``."""

    def __init__(
        self, http: aiohttp.ClientSession, namespace: str, server_name: str | None = None
    ) -> None:
        self._http = http
        self._server_name = server_name  # of the certificate, if it differs from the URL's
        self.namespace = namespace

    @classmethod
    @asynccontextmanager
    async def connect(cls, target: Target) -> AsyncIterator[Cluster]:
        """Connect with the kubeconfig, or inside a cluster with the pod's service account."""
        settings, namespace = await _configuration(target)
        api = client.ApiClient(configuration=settings)
        authorization = await settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        connector = aiohttp.TCPConnector(ssl=api.rest_client.ssl_context)
        async with aiohttp.ClientSession(
            f"{settings.host}/",
            connector=connector,
            headers={"Authorization": authorization} if authorization else {},
            proxy=settings.proxy,
            trust_env=True,
            timeout=TIMEOUT,
        ) as http:
            yield cls(http, target.namespace or namespace, settings.tls_server_name)

    # --- sessions ---------------------------------------------------------------------------------

    async def session(self, name: str) -> Manifest:
        """Return a session; raise ``NotFound`` when it does not exist."""
        return await self._call("GET", f"{self._sessions()}/{quote(name)}")

    async def sessions(
        self, *, everywhere: bool = False, selector: str | None = None, accept: str = ""
    ) -> Manifest:
        """Return the list of sessions, in the form that ``accept`` asks for."""
        return await self._call(
            "GET", self._sessions(everywhere), _selected(selector), accept=accept
        )

    async def classes(self, *, accept: str = "") -> Manifest:
        """Return the list of WhatsAppSessionClasses, in the form that ``accept`` asks for."""
        return await self._call("GET", f"apis/{API_VERSION}/{CLASS_PLURAL}", accept=accept)

    async def session_class(self, name: str) -> Manifest:
        """Return a class; raise ``NotFound`` when it does not exist."""
        return await self._call("GET", _class_path(name))

    async def patch_class(self, name: str, patch: Manifest) -> Manifest:
        """Apply a merge patch to a class; return the result."""
        return await self._call("PATCH", _class_path(name), {"fieldManager": FIELD_MANAGER}, patch)

    async def replace_class(self, session_class: Manifest) -> Manifest:
        """Write a class unless it has changed since it was read; return the result."""
        path = _class_path(session_class["metadata"]["name"])
        return await self._call("PUT", path, {"fieldManager": FIELD_MANAGER}, session_class)

    async def patch(self, name: str, patch: Manifest) -> Manifest:
        """Apply a merge patch to a session; return the result."""
        path, query = f"{self._sessions()}/{quote(name)}", {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", path, query, patch)

    async def create(self, session: Manifest) -> Manifest:
        """Create a session; return the result."""
        return await self._call("POST", self._sessions(), {"fieldManager": FIELD_MANAGER}, session)

    def watch_session(self, name: str) -> AsyncIterator[Manifest]:
        """Yield a session now and after each change; raise ``NotFound`` when it is deleted."""
        return self._watch_object(self._sessions(), name)

    async def watch_sessions(
        self,
        version: str,
        *,
        everywhere: bool = False,
        selector: str | None = None,
        accept: str = "",
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield watch events after ``version``; raise ``ResourceExpired`` when it is too old."""
        async for change in self._watch(
            self._sessions(everywhere), version, _selected(selector), accept
        ):
            yield change

    async def events(self, uid: str) -> list[Manifest]:
        """Return the Events about the object with this UID."""
        path = f"api/v1/namespaces/{self.namespace}/events"
        result = await self._call("GET", path, {"fieldSelector": f"involvedObject.uid={uid}"})
        events: list[Manifest] = result["items"]
        return events

    # --- backups ----------------------------------------------------------------------------------

    async def backup(self, name: str) -> Manifest:
        """Return a backup; raise ``NotFound`` when it does not exist."""
        return await self._call("GET", f"{self._backups()}/{quote(name)}")

    async def backups(self, *, accept: str = "") -> Manifest:
        """Return the list of backups, in the form that ``accept`` asks for."""
        return await self._call("GET", self._backups(), accept=accept)

    async def create_backup(self, backup: Manifest) -> Manifest:
        """Create a backup; return the result. Raise ``Conflict`` for a name that is taken."""
        return await self._call("POST", self._backups(), {"fieldManager": FIELD_MANAGER}, backup)

    async def patch_backup(self, name: str, patch: Manifest) -> Manifest:
        """Apply a merge patch to a backup; return the result.

        Raise ``Conflict`` if the patch names a resource version that is not the present one.
        """
        path, query = f"{self._backups()}/{quote(name)}", {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", path, query, patch)

    def watch_backup(self, name: str) -> AsyncIterator[Manifest]:
        """Yield a backup now and after each change; raise ``NotFound`` when it is deleted."""
        return self._watch_object(self._backups(), name)

    # --- the session's pod ------------------------------------------------------------------------

    async def logs(self, pod: str, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield the log of the session's container as it arrives."""
        parameters = {"container": CONTAINER, **options}
        async with self._answer(
            "GET", f"{self._pod(pod)}/log", parameters, timeout=STREAM
        ) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    @asynccontextmanager
    async def pod(self, session: Manifest) -> AsyncIterator[SessionPod]:
        """Connect to the session's pod; raise ``Unreachable`` when there is none at the moment."""
        name = session.get("status", {}).get("podName")
        if not name:
            raise Unreachable(
                formatting.no_pod(session),
                f"kubectl wasession status {session['metadata']['name']} shows its state",
            )
        connector = PortForwardConnector(lambda: self._port_forward(name))
        try:
            async with aiohttp.ClientSession(connector=connector) as http:
                yield SessionPod(http, connector, lambda: self._tokens(session))
        finally:
            await connector.aclose()

    async def _tokens(self, session: Manifest) -> list[str]:
        """Return the session's bearer tokens; raise ``Unreachable`` when it has none yet."""
        name = token_secret_name(session["metadata"]["name"])
        try:
            secret = await self._call(
                "GET", f"api/v1/namespaces/{self.namespace}/secrets/{quote(name)}"
            )
        except Forbidden:
            raise Forbidden(
                f"you are not allowed to read the Secret {name} with the session's token",
                "this requires the verb get on secrets; the role edit grants it",
            ) from None
        owners = [owner["uid"] for owner in secret["metadata"].get("ownerReferences", [])]
        if session["metadata"]["uid"] not in owners:
            raise Unreachable(f"the Secret {name} belongs to another session")
        if not (session_tokens := tokens(secret)):
            raise Unreachable(f"the Secret {name} has no token yet")
        return session_tokens

    async def _port_forward(self, pod: str) -> aiohttp.ClientWebSocketResponse:
        try:
            return await self._http.ws_connect(
                f"{self._pod(pod)}/portforward",
                params={"ports": str(PORT)},
                protocols=[portforward.PROTOCOL],
                max_msg_size=0,
                server_hostname=self._server_name,
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise Forbidden(
                    f"you are not allowed to open a port-forward to the pod {pod}",
                    "this requires the verb create on pods/portforward; the role edit grants it",
                ) from None
            raise Unreachable(
                f"the session pod is unreachable: the API server answered {error.status}"
            ) from None

    # --- HTTP -------------------------------------------------------------------------------------

    def _sessions(self, everywhere: bool = False) -> str:
        return (
            f"apis/{API_VERSION}/{PLURAL}"
            if everywhere
            else f"apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}"
        )

    def _backups(self) -> str:
        return f"apis/{API_VERSION}/namespaces/{self.namespace}/{BACKUP_PLURAL}"

    def _pod(self, name: str) -> str:
        return f"api/v1/namespaces/{self.namespace}/pods/{quote(name)}"

    async def _call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        accept: str = "",
    ) -> Manifest:
        async with self._answer(verb, path, query, body, accept=accept) as response:
            result: Manifest = await response.json(content_type=None)
            return result

    async def _watch_object(self, path: str, name: str) -> AsyncIterator[Manifest]:
        while True:
            obj = await self._call("GET", f"{path}/{quote(name)}")
            yield obj
            selector = {"fieldSelector": f"metadata.name={name}"}
            version = obj["metadata"]["resourceVersion"]
            try:
                async for kind, changed in self._watch(path, version, selector):
                    if kind == "DELETED":
                        break  # the next GET raises NotFound, or returns its successor
                    yield changed
            except ResourceExpired:
                continue

    async def _watch(
        self, path: str, version: str, query: Mapping[str, str], accept: str = ""
    ) -> AsyncIterator[tuple[str, Manifest]]:
        while True:  # the API server ends each watch after a while
            parameters = {
                **query,
                "watch": "true",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
            }
            async with self._answer(
                "GET", path, parameters, accept=accept, timeout=STREAM
            ) as response:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise ResourceExpired
                        version = _version(event["object"])
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]

    @asynccontextmanager
    async def _answer(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        *,
        accept: str = "",
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": accept or "application/json"}
        if body is not None:
            headers["Content-Type"] = CONTENT_TYPES[verb]
        content = None if body is None else json.dumps(body)
        try:
            async with self._http.request(
                verb,
                path,
                params=query,
                data=content,
                headers=headers,
                timeout=timeout,
                server_hostname=self._server_name,
            ) as response:
                if response.status == 410:
                    raise ResourceExpired
                if response.status >= 400:
                    raise _to_failure(response.status, await response.text())
                yield response
        except aiohttp.ClientError as error:
            raise Failure(f"the API server is unreachable: {error}") from None
        except TimeoutError:
            raise Failure("the API server does not answer") from None


def _class_path(name: str) -> str:
    return f"apis/{API_VERSION}/{CLASS_PLURAL}/{quote(name)}"


def _version(obj: Manifest) -> str:
    """Return the resource version of an object, or of a Table's only row."""
    rows = obj.get("rows")
    return str((rows[0]["object"] if rows else obj)["metadata"]["resourceVersion"])


def _selected(selector: str | None) -> dict[str, str]:
    return {"labelSelector": selector} if selector else {}


def _to_failure(status: int, text: str) -> Failure:
    """Return the failure that an error response stands for, with the API server's message."""
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        if status == 404:
            return Failure(
                "this cluster has no WhatsAppSessions",
                "is wasession installed, and is this the right context?",
            )
        return Failure(f"the API server answered {status}: {text[:200].strip()}")
    match status:
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 401:
            return Forbidden(
                f"authentication failed: {message}",
                "have the credentials in your kubeconfig expired?",
            )
        case 403:
            return Forbidden(message)
        case _:
            return Failure(message)


async def _configuration(target: Target) -> tuple[client.Configuration, str]:
    """Return the configuration of the client, and the namespace of the context."""
    settings = client.Configuration()
    files, current = _kubeconfig(target)
    if files is None:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        return settings, _service_account_namespace()
    try:
        loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
            files, target.context or current, settings, persist_config=False
        )
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        raise Failure(f"the kubeconfig is invalid: {error}") from None
    return settings, loader.current_context["context"].get("namespace") or "default"


def _kubeconfig(target: Target) -> tuple[str | None, str | None]:
    """Return the kubeconfig's files, separated as in PATH, and its current context.

    None inside a cluster without a kubeconfig. As with kubectl, the first of several files that has
    a current context decides; the loader would take the last.
    """
    files = (
        target.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    )
    existing = [
        path
        for file in files.split(os.pathsep)
        if file and (path := Path(file).expanduser()).is_file()
    ]
    if not existing and target.kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return None, None
    if not existing:
        raise Failure(f"no kubeconfig at {files}", "set --kubeconfig or KUBECONFIG")
    try:
        contents = [yaml.safe_load(path.read_text()) or {} for path in existing]
    except (yaml.YAMLError, OSError) as error:
        raise Failure(f"the kubeconfig is invalid: {error}") from None
    return files, next(
        (current for content in contents if (current := content.get("current-context"))), None
    )


def _service_account_namespace() -> str:
    return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
