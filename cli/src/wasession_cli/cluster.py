"""The cluster as the user's kubeconfig shows it: sessions, their Events, logs, tokens and pods."""

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
from wasession_api.names import object_name
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import API_VERSION, PLURAL

from wasession_cli import portforward
from wasession_cli.exits import Failure, Forbidden, NotFound, NotReady, Unreachable
from wasession_cli.portforward import PortForwardConnector
from wasession_cli.session_pod import Pod

CONTAINER = "session"
PORT = 8080
MERGE_PATCH = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
TIMEOUT = aiohttp.ClientTimeout(total=30)
STREAM = aiohttp.ClientTimeout(total=None, sock_connect=30)
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Expired(Exception):
    """The API server remembers no changes since the version that a watch began with."""


@dataclass
class Target:
    """Which cluster and namespace the user means; None is what the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


class Cluster:
    """The API server and the namespace that the user means. Raises ``Failure`` with words for the user."""

    def __init__(
        self, http: aiohttp.ClientSession, namespace: str, server_name: str | None = None
    ) -> None:
        self._http = http
        self._server_name = (
            server_name  # in the API server's certificate, where it isn't that of its URL
        )
        self.namespace = namespace

    @classmethod
    @asynccontextmanager
    async def connect(cls, target: Target) -> AsyncIterator[Cluster]:
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
        return await self._call("GET", f"{self._sessions()}/{quote(name)}")

    async def sessions(
        self, *, everywhere: bool = False, selector: str | None = None, accept: str = ""
    ) -> Manifest:
        """The list as the API server gives it; ``accept`` may ask for it as a Table."""
        return await self._call(
            "GET", self._sessions(everywhere), _selected(selector), accept=accept
        )

    async def patch(self, name: str, patch: Manifest) -> Manifest:
        """A merge patch of a session; returns it as it is then."""
        return await self._call("PATCH", f"{self._sessions()}/{quote(name)}", body=patch)

    async def follow(self, name: str) -> AsyncIterator[Manifest]:
        """A session as it is now and after each change; raises ``NotFound`` when it is deleted."""
        while True:
            session = await self.session(name)
            yield session
            selector = {"fieldSelector": f"metadata.name={name}"}
            try:
                async for kind, changed in self._watch(
                    self._sessions(), session["metadata"]["resourceVersion"], selector
                ):
                    if kind == "DELETED":
                        break  # the next GET says so, or finds another of that name
                    yield changed
            except Expired:
                continue

    async def changes(
        self,
        version: str,
        *,
        everywhere: bool = False,
        selector: str | None = None,
        accept: str = "",
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """What happens to the list after ``version``; raises ``Expired`` when the API server has forgotten that version."""
        async for change in self._watch(
            self._sessions(everywhere), version, _selected(selector), accept
        ):
            yield change

    async def events(self, uid: str) -> list[Manifest]:
        """The Events about one object."""
        path = f"api/v1/namespaces/{self.namespace}/events"
        found = await self._call("GET", path, {"fieldSelector": f"involvedObject.uid={uid}"})
        events: list[Manifest] = found["items"]
        return events

    # --- the session's pod ------------------------------------------------------------------------

    async def logs(self, pod: str, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The log of the session's container, as it comes."""
        parameters = {"container": CONTAINER, **options}
        async with self._answer(
            "GET", f"{self._pod(pod)}/log", parameters, timeout=STREAM
        ) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    @asynccontextmanager
    async def pod(self, session: Manifest) -> AsyncIterator[Pod]:
        """The HTTP API of the session's pod; raises ``NotReady`` when the session has none."""
        name = session.get("status", {}).get("podName")
        if not name:
            phase = session.get("status", {}).get("phase", "Pending")
            raise NotReady(f"session {session['metadata']['name']} has no pod: it is {phase}")
        connector = PortForwardConnector(lambda: self._port_forward(name))
        try:
            async with aiohttp.ClientSession(
                f"http://localhost:{PORT}/", connector=connector
            ) as http:
                yield Pod(http, connector, lambda: self._tokens(session))
        finally:
            await connector.aclose()

    async def _tokens(self, session: Manifest) -> list[str]:
        """The session's bearer tokens; raises ``Unreachable`` when there are none for this very session."""
        name = object_name(session["metadata"]["name"])
        try:
            secret = await self._call(
                "GET", f"api/v1/namespaces/{self.namespace}/secrets/{quote(name)}"
            )
        except Forbidden:
            raise Forbidden(
                f"you may not read the Secret {name} with the session's token",
                "it needs the verb get on secrets in the session's namespace; the role edit has it",
            ) from None
        owners = [owner["uid"] for owner in secret["metadata"].get("ownerReferences", [])]
        if session["metadata"]["uid"] not in owners:
            raise Unreachable(f"the Secret {name} is of another session")
        if not (found := tokens(secret)):
            raise Unreachable(f"the Secret {name} has no token yet")
        return found

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
                    f"you may not open a port-forward to the pod {pod}",
                    "it needs the verb create on pods/portforward in the session's namespace; the role edit has it",
                ) from None
            raise Unreachable(
                f"the session pod cannot be reached: the API server answered {error.status}"
            ) from None

    # --- HTTP -------------------------------------------------------------------------------------

    def _sessions(self, everywhere: bool = False) -> str:
        return (
            f"apis/{API_VERSION}/{PLURAL}"
            if everywhere
            else f"apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}"
        )

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
            answer: Manifest = await response.json(content_type=None)
            return answer

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
                            raise Expired
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
            headers["Content-Type"] = MERGE_PATCH
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
                    raise Expired
                if response.status >= 400:
                    raise _refusal(response.status, await response.text())
                yield response
        except aiohttp.ClientError as error:
            raise Failure(f"the API server cannot be reached: {error}") from None
        except TimeoutError:
            raise Failure("the API server does not answer") from None


def _version(changed: Manifest) -> str:
    """The resource version of an object, or of the one row of a Table."""
    rows = changed.get("rows")
    return str((rows[0]["object"] if rows else changed)["metadata"]["resourceVersion"])


def _selected(selector: str | None) -> dict[str, str]:
    return {"labelSelector": selector} if selector else {}


def _refusal(status: int, text: str) -> Failure:
    """The API server's own sentence, as the kind of failure that it is."""
    try:
        said = json.loads(text)
        message = str(said["message"])
    except (ValueError, KeyError, TypeError):
        if status == 404:
            return Failure(
                "this cluster does not know WhatsAppSessions",
                "is wasession installed, and is this the context that you mean?",
            )
        return Failure(f"the API server answered {status}: {text[:200].strip()}")
    match status:
        case 404:
            return NotFound(message)
        case 401:
            return Forbidden(
                f"the API server does not know you: {message}",
                "is the login of your kubeconfig still valid?",
            )
        case 403:
            return Forbidden(message)
        case _:
            return Failure(message)


async def _configuration(target: Target) -> tuple[client.Configuration, str]:
    """How to reach the cluster, and the namespace of the context."""
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
        raise Failure(f"the kubeconfig cannot be used: {error}") from None
    return settings, loader.current_context["context"].get("namespace") or "default"


def _kubeconfig(target: Target) -> tuple[str | None, str | None]:
    """The kubeconfig's files, as PATH has them, and its current context; None inside a cluster without one.

    Of several files the first that has a current context decides, as with kubectl; the loader would
    take the last.
    """
    files = (
        target.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    )
    found = [
        path
        for file in files.split(os.pathsep)
        if file and (path := Path(file).expanduser()).is_file()
    ]
    if not found and target.kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return None, None
    if not found:
        raise Failure(
            f"there is no kubeconfig at {files}", "name one with --kubeconfig or KUBECONFIG"
        )
    try:
        contents = [yaml.safe_load(path.read_text()) or {} for path in found]
    except (yaml.YAMLError, OSError) as error:
        raise Failure(f"the kubeconfig cannot be used: {error}") from None
    return files, next(
        (current for content in contents if (current := content.get("current-context"))), None
    )


def _service_account_namespace() -> str:
    return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
