"""wasession installed in a cluster, seen as its users see it: kubectl, Helm, HTTP and a phone.

The demo and the end-to-end tests both tell their story with it. It works on any cluster that offers
what pytest-kind's ``KindCluster`` offers (see ``Cluster`` below).
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib import request

from support.cluster import images

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "wasession-operator"
STANDIN = ROOT / "tests" / "support" / "standin" / "manifest.yaml"
SYSTEM = "wasession-system"


class Cluster(Protocol):
    """What a cluster must offer; pytest-kind's ``KindCluster`` and the embedded cluster both do."""

    @property
    def kubeconfig_path(self) -> Path: ...

    def kubectl(self, *args: str) -> str: ...

    def load_docker_image(self, docker_image: str) -> None: ...

    def port_forward(
        self, service_or_pod_name: str, remote_port: int, *args: str
    ) -> AbstractContextManager[int]: ...


class Testbed:
    """The operator and the stand-in of web.whatsapp.com in one cluster."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(self, cluster: Cluster, helm: str = "helm") -> None:
        self.cluster = cluster
        self._helm = helm

    # --- installing -------------------------------------------------------------------------------

    def load_images(self) -> None:
        """Builds the images and gives them to every node."""
        for target in images.TARGETS:
            self.cluster.load_docker_image(images.build(target))

    def install_operator(self, *more: str) -> None:
        """``helm upgrade --install`` of the chart with the images built here; returns when all of it is ready."""
        self.helm(
            "upgrade", "--install", "--take-ownership", "wasession", str(CHART), "--namespace", SYSTEM, "--create-namespace",
            "--set", f"image.repository={_repository('operator')}", "--set", "image.tag=dev",
            "--set", f"sessionImage.repository={_repository('session-pod')}", "--set", "sessionImage.tag=dev",
            "--wait", "--timeout", "120s", *more,
        )  # fmt: skip

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
        """The base URL of the stand-in's control API."""
        with self.cluster.port_forward("service/standin", 80, "-n", "standin") as port:
            yield f"http://127.0.0.1:{port}"

    def session(self, name: str, namespace: str = "default") -> Session:
        return Session(self.cluster, name, namespace)


class Session:
    """One WhatsAppSession and its pod."""

    def __init__(self, cluster: Cluster, name: str, namespace: str) -> None:
        self.cluster, self.name, self.namespace = cluster, name, namespace

    def kubectl(self, *args: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args)

    def apply(self, manifest: Path) -> None:
        self.kubectl("apply", "-f", str(manifest))

    @property
    def resource(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.kubectl("get", "wasession", self.name, "-o", "json")
        )
        return found

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.resource.get("status", {}))

    def pod(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.kubectl("get", "pod", self.status["podName"], "-o", "json")
        )
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        """One of the status's conditions; ``KeyError`` when it isn't there."""
        return dict(
            {condition["type"]: condition for condition in self.status.get("conditions", [])}[kind]
        )

    def wait(self, condition: str, timeout: float = 120) -> None:
        """``kubectl wait --for=...``; raises ``CalledProcessError`` after ``timeout`` seconds."""
        self.kubectl(
            "wait", f"--for={condition}", f"wasession/{self.name}", f"--timeout={timeout:.0f}s"
        )

    def wait_phase(self, phase: str, timeout: float = 120) -> None:
        self.wait(f"jsonpath={{.status.phase}}={phase}", timeout)

    def wait_ready(self, timeout: float = 120) -> None:
        self.wait("condition=Ready", timeout)

    # --- the session pod's own HTTP API -----------------------------------------------------------

    def call(self, method: str, path: str, body: object = None, timeout: float = 60) -> Any:
        """JSON from the session pod's API, with the session's token; raises ``urllib.error.HTTPError``."""
        names = self.status
        secret = json.loads(self.kubectl("get", "secret", names["podName"], "-o", "json"))
        token = base64.b64decode(secret["data"]["token"]).decode()
        with self.cluster.port_forward(
            f"pod/{names['podName']}", 8080, "-n", self.namespace
        ) as port:
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
        """Sends a text message and returns its id."""
        message_id: str = self.call("POST", "/v1/messages", {"to": to, "text": text})["id"]
        return message_id

    @contextlib.contextmanager
    def recorded_phases(self) -> Iterator[list[str]]:
        """The phases that a watch of the session shows while the block runs, in order, without repeats."""
        phases: list[str] = []
        command = [
            "kubectl",
            "--kubeconfig",
            str(self.cluster.kubeconfig_path),
            "-n",
            self.namespace,
            "get",
        ]
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


def _repository(target: str) -> str:
    return images.name(target).rpartition(":")[0]
