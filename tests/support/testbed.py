"""wasession installed in a cluster, seen as its users see it: kubectl, Helm, HTTP and a phone.

The demo and the end-to-end tests both tell their story with it. It works on any cluster that offers
what pytest-kind's ``KindCluster`` offers (see ``Cluster`` below).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib import request

from support.cluster import images
from support.cluster.waiting import wait_for
from support.standin.client import Phone
from wasession_api.names import token_secret_name

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "wasession-operator"
STANDIN = ROOT / "tests" / "support" / "standin" / "manifest.yaml"
VALUES = ROOT / "tests" / "support" / "standin" / "values.yaml"
SYSTEM = "wasession-system"


class Cluster(Protocol):
    """The interface of a cluster, shared by pytest-kind's ``KindCluster`` and the embedded one."""

    @property
    def kubeconfig_path(self) -> Path: ...

    def kubectl(self, *args: str) -> str: ...

    def load_docker_image(self, docker_image: str) -> None: ...

    def port_forward(
        self, service_or_pod_name: str, remote_port: int, *args: str
    ) -> AbstractContextManager[int]: ...


class Testbed:
    """The operator and the stand-in of web.whatsapp.com in one cluster."""

    __test__ = False  # not a test class, in spite of its name

    def __init__(self, cluster: Cluster, helm: str = "helm") -> None:
        self.cluster = cluster
        self._helm = helm

    # --- installing -------------------------------------------------------------------------------

    def load_images(self) -> None:
        """Build the images and load them into every node."""
        for target in images.TARGETS:
            self.cluster.load_docker_image(images.build(target))

    def install_operator(self, *more: str) -> None:
        """Install or upgrade the chart with the images built here; return when it is ready.

        Sessions of the default class open the stand-in.
        """
        values = {
            "image.repository": _repository("operator"),
            "image.tag": "dev",
            "sessionImage.repository": _repository("session-pod"),
            "sessionImage.tag": "dev",
        }
        self.helm(
            *("upgrade", "--install", "--take-ownership", "wasession", str(CHART)),
            *("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s"),
            *(
                argument
                for name, value in values.items()
                for argument in ("--set", f"{name}={value}")
            ),
            *("--values", str(VALUES)),
            *more,
        )

    @contextlib.contextmanager
    def session_class(self, name: str, **spec: Any) -> Iterator[str]:
        """Create a class like the default one, but with these fields; yield its name."""
        output = self.cluster.kubectl("get", "wasc", "default", "-o", "json")
        manifest = {
            "apiVersion": "wasession.dev/v1alpha1",
            "kind": "WhatsAppSessionClass",
            "metadata": {"name": name},
            "spec": json.loads(output)["spec"] | spec,
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(manifest, file)
            file.flush()
            self.cluster.kubectl("apply", "-f", file.name)
        try:
            yield name
        finally:
            self.cluster.kubectl("delete", "wasc", name)

    def install_standin(self) -> None:
        self.cluster.kubectl("apply", "-f", str(STANDIN))
        self.cluster.kubectl(
            "-n", "standin", "rollout", "status", "deployment/standin", "--timeout=120s"
        )

    def helm(self, *args: str) -> str:
        command = [self._helm, "--kubeconfig", str(self.cluster.kubeconfig_path), *args]
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout

    @contextlib.contextmanager
    def phone(self) -> Iterator[str]:
        """Yield the base URL of the stand-in's control API."""
        with self.cluster.port_forward("service/standin", 80, "-n", "standin") as port:
            yield f"http://127.0.0.1:{port}"

    def session(self, name: str, namespace: str = "default") -> Session:
        return Session(self.cluster, name, namespace)

    def create_session(self, name: str, namespace: str, **spec: Any) -> Session:
        """Create a session, or change its spec, and return it."""
        session = self.session(name, namespace)
        session.create("WhatsAppSession", name, **spec)
        return session

    def link(self, session: Session, account: str) -> None:
        """Scan the session's QR with the phone of an account, and wait until it is Ready."""
        session.wait_phase("Authenticating")
        code = session.pairing_code()
        with self.phone() as url:
            asyncio.run(Phone(url).scan(code, account))
        session.wait_ready()

    def arrives(self, session: Session, text: str, to: str = "15550001111") -> bool:
        """Let a session send a text, and return whether the stand-in has delivered it."""
        session.send(to, text)
        with self.phone() as url:
            return any(message.text == text for message in asyncio.run(Phone(url).messages()))


class Session:
    """One WhatsAppSession and its pod."""

    def __init__(self, cluster: Cluster, name: str, namespace: str) -> None:
        self.cluster, self.name, self.namespace = cluster, name, namespace

    def kubectl(self, *args: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args)

    def apply(self, manifest: Path) -> None:
        self.kubectl("apply", "-f", str(manifest))

    def create(self, kind: str, name: str, **spec: Any) -> None:
        """Create a resource of wasession in the session's namespace, or change its spec."""
        manifest = {"apiVersion": "wasession.dev/v1alpha1", "kind": kind, "spec": spec}
        manifest["metadata"] = {"name": name}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(manifest, file)
            file.flush()
            self.apply(Path(file.name))

    @property
    def resource(self) -> dict[str, Any]:
        output = self.kubectl("get", "wasession", self.name, "-o", "json")
        resource: dict[str, Any] = json.loads(output)
        return resource

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.resource.get("status", {}))

    def pod(self) -> dict[str, Any]:
        output = self.kubectl("get", "pod", self.status["podName"], "-o", "json")
        pod: dict[str, Any] = json.loads(output)
        return pod

    def condition(self, kind: str) -> dict[str, Any]:
        """Return a condition of the status; raises ``KeyError`` if it is missing."""
        conditions = self.status.get("conditions", [])
        return dict({condition["type"]: condition for condition in conditions}[kind])

    def wait(self, condition: str, timeout: float = 120) -> None:
        """Run ``kubectl wait --for=...``; raises ``CalledProcessError`` when the time is up."""
        self.kubectl(
            "wait", f"--for={condition}", f"wasession/{self.name}", f"--timeout={timeout:.0f}s"
        )

    def wait_phase(self, phase: str, timeout: float = 120) -> None:
        self.wait(f"jsonpath={{.status.phase}}={phase}", timeout)

    def wait_ready(self, timeout: float = 120) -> None:
        self.wait("condition=Ready", timeout)

    # --- the session pod's own HTTP API -----------------------------------------------------------

    def call(self, method: str, path: str, body: object = None, timeout: float = 60) -> Any:
        """Return JSON from the session pod's API, called with the session's token.

        Raises ``urllib.error.HTTPError``.
        """
        name = token_secret_name(self.name)
        secret = json.loads(self.kubectl("get", "secret", name, "-o", "json"))
        token = base64.b64decode(secret["data"]["token"]).decode()
        pod = f"pod/{self.status['podName']}"
        with self.cluster.port_forward(pod, 8080, "-n", self.namespace) as port:
            call = request.Request(
                f"http://127.0.0.1:{port}{path}",
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
            with request.urlopen(call, timeout=timeout) as answer:  # noqa: S310
                return json.load(answer)

    def pairing_code(self) -> str:
        code: str = self.call("GET", "/v1/pairing")["code"]
        return code

    def send(self, to: str, text: str) -> str:
        """Send a text message and return its id."""
        message_id: str = self.call("POST", "/v1/messages", {"to": to, "text": text})["id"]
        return message_id

    @contextlib.contextmanager
    def recorded_phases(self) -> Iterator[list[str]]:
        """Record the phases that a watch of the session shows, in order, without repeats."""
        phases: list[str] = []
        kubeconfig = str(self.cluster.kubeconfig_path)
        command = ["kubectl", "--kubeconfig", kubeconfig, "-n", self.namespace, "get"]
        command += ["wasession", self.name, "--watch", "-o", "jsonpath={.status.phase}{'\\n'}"]
        watch = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        first = threading.Event()

        def read() -> None:
            assert watch.stdout is not None
            for line in watch.stdout:
                if line.strip() and phases[-1:] != [line.strip()]:
                    phases.append(line.strip())
                first.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert first.wait(30), "the watch showed nothing"
            yield phases
        finally:
            watch.terminate()
            watch.wait()
            reader.join()


def wait_established(cluster: Cluster, crd: str) -> None:
    """Wait until the API server serves a CRD; ``kubectl wait`` fails while it has no conditions."""
    established = 'jsonpath={.status.conditions[?(@.type=="Established")].status}'
    wait_for(
        f"CRD {crd} to be Established",
        lambda: cluster.kubectl("get", "crd", crd, "-o", established) == "True",
        30,
    )


def plugin_path() -> str:
    """Return a PATH on which kubectl finds its plugin, which pip has installed beside Python."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _repository(target: str) -> str:
    return images.name(target).rpartition(":")[0]
