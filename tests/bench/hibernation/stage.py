"""The embedded cluster with wasession and the stand-in, and the ways into it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import jwt
from pydantic import ValidationError
from support.cluster import Cluster, ClusterRunning, binaries, host
from support.cluster.audit import LOG
from support.cluster.control_plane import SERVER
from support.fakes.api import Api, context
from support.processes import ENDS_WITH_PARENT
from support.standin import Phone
from support.testbed import SYSTEM, Testbed
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.v1alpha1 import API_VERSION, KIND, PLURAL

from bench.hibernation.usage import STANDIN
from bench.operator.audit import Audit

VALUES = Path(__file__).with_name("values.yaml")
NAMESPACE = "bench-hibernation"  # as in values.yaml
NODES = 2
GATEWAY = "wasession-gateway"
OWNER = "bench"
TOKEN_LIFETIME = 7 * 86400  # seconds
FORWARDED = 60.0  # seconds until kubectl must forward a port
LONGEST = 300.0  # seconds that a request to the gateway may take: its own limits are shorter


class Answer(NamedTuple):
    """``body`` is None without one in JSON; ``problem`` says what went wrong."""

    status: int | None
    seconds: float
    body: Any = None
    problem: str = ""


@contextlib.contextmanager
def testbed() -> Iterator[Testbed]:
    """Yield a new cluster with chart, gateway and stand-in; nothing of it is left afterwards."""
    host.ensure("cluster", "images")
    binaries.put_on_path()
    with tempfile.TemporaryDirectory(
        prefix="bench-hibernation-", ignore_cleanup_errors=True
    ) as directory:
        cluster = Cluster(Path(directory) / "cluster", NODES)
        try:
            cluster.start()
        except ClusterRunning as error:
            raise SystemExit(str(error)) from None
        try:
            bed = Testbed(cluster, helm=str(binaries.path("helm")))
            bed.load_images()
            cluster.kubectl("create", "namespace", NAMESPACE)
            bed.install_operator("--values", str(VALUES))
            bed.install_standin()
            cluster.kubectl(
                *("-n", SYSTEM, "rollout", "status", f"deployment/{GATEWAY}", "--timeout=180s")
            )
            yield bed
        finally:
            cluster.stop()


class Stage:
    """What a run uses of the testbed. Forwards a port for each use, so no broken one stays."""

    def __init__(
        self, bed: Testbed, cluster: Cluster, api: Api, http: aiohttp.ClientSession
    ) -> None:
        self.api, self._http = api, http
        self._kubeconfig = cluster.kubeconfig_path
        self.audit = Audit(cluster.directory / LOG)
        self.volumes = cluster.directory / "volumes"
        self._headers = {"Authorization": f"Bearer {_token(bed)}"}

    async def create(self, name: str) -> None:
        """Create a session of the default class, which hibernates."""
        await self.api.create(
            PLURAL,
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"namespace": NAMESPACE, "name": name},
                "spec": {"owner": OWNER, "clientId": name},
            },
        )

    @contextlib.asynccontextmanager
    async def phone(self) -> AsyncIterator[Phone]:
        async with self._forwarded("service/standin", STANDIN) as url:
            yield Phone(url)

    async def send(self, session: str, to: str, text: str) -> Answer:
        body = {"clientId": session, "to": to, "text": text}
        return await self._ask("POST", "/whatsapp/messages", body)

    async def link_code(self, session: str) -> str | None:
        """Return the code that links a phone; None if there is none at the moment."""
        answer = await self._ask("GET", f"/whatsapp/sessions/{session}/pairing")
        if answer.status != 200:
            return None
        try:
            return LinkCode.model_validate(answer.body).code
        except ValidationError:
            return None

    async def _ask(self, method: str, path: str, body: object = None) -> Answer:
        """Return the gateway's answer, with the time from the request to the end of it."""
        began = time.monotonic()
        try:
            async with self._forwarded(f"service/{GATEWAY}", SYSTEM) as url:
                began = time.monotonic()
                async with self._http.request(
                    method,
                    url + path,
                    json=body,
                    headers=self._headers | {"Accept": "application/json"},
                    timeout=aiohttp.ClientTimeout(total=LONGEST),
                ) as response:
                    text = await response.text()
                    seconds = time.monotonic() - began
                    content = json.loads(text) if "json" in response.content_type else None
                    problem = "" if response.ok else _title(content, response.reason)
                    return Answer(response.status, seconds, content, problem)
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            return Answer(None, time.monotonic() - began, problem=type(error).__name__)

    @contextlib.asynccontextmanager
    async def _forwarded(self, service: str, namespace: str) -> AsyncIterator[str]:
        """Yield the URL of a Service; raise ``RuntimeError`` with kubectl's output without one.

        ``Cluster.port_forward`` would hold up whoever else is being measured.
        """
        process = await asyncio.create_subprocess_exec(
            *ENDS_WITH_PARENT,
            str(binaries.path("kubectl")),
            f"--kubeconfig={self._kubeconfig}",
            *("port-forward", service, ":80", "-n", namespace),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(FORWARDED):
                line = (await process.stdout.readline()).decode()
            match = re.match(r"Forwarding from (127\.0\.0\.1:\d+)", line)
            if match is None:
                raise RuntimeError(f"port-forward to {service} failed: {line.strip()}")
            yield f"http://{match[1]}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def stage(bed: Testbed) -> AsyncIterator[Stage]:
    cluster = bed.cluster
    assert isinstance(cluster, Cluster), "control groups and disks are those of this machine"
    connector = aiohttp.TCPConnector(ssl=context(cluster.kubeconfig_path.parent))
    api = Api(SERVER, connector)
    try:
        async with aiohttp.ClientSession() as http:
            yield Stage(bed, cluster, api, http)
    finally:
        await api.close()


def _token(bed: Testbed) -> str:
    """Return a token of the owner of all sessions."""
    secret = json.loads(
        bed.cluster.kubectl("-n", SYSTEM, "get", "secret", f"{GATEWAY}-jwt", "-o", "json")
    )
    key = base64.b64decode(secret["data"]["jwt-secret"])
    return jwt.encode({"sub": OWNER, "exp": time.time() + TOKEN_LIFETIME}, key, algorithm="HS256")


def _title(content: object, reason: str | None) -> str:
    """Return the title of a problem (RFC 9457): its detail may hold what nobody should publish."""
    title = content.get("title") if isinstance(content, dict) else None
    return str(title or reason)
