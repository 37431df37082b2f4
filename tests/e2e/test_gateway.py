"""Two gateways of the chart, and an application in the cluster that uses them by their Service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib import error, request

import jwt
import pytest
from support.standin import Phone
from support.testbed import SYSTEM, Session, Testbed

HERE = Path(__file__).parent
VALUES = HERE.parent / "demo" / "gateway.yaml"
NAMESPACE = "e2e-gateway"
NAME = "wasession-gateway"
URL = f"http://{NAME}.{SYSTEM}.svc"
ME, FRIEND = "15551234567", "15550001111"
PATIENCE = 180.0  # seconds
RATE = 100  # requests a second


class Application:
    """``client.py`` in its pod."""

    def __init__(self, bed: Testbed, *arguments: str) -> None:
        kubectl = ["kubectl", "--kubeconfig", str(bed.cluster.kubeconfig_path), "-n", NAMESPACE]
        program = ["python", "/client/client.py", *arguments]
        self._process = subprocess.Popen(
            [*kubectl, "exec", "-i", "client", "--", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def hears(self, name: str, **expected: object) -> Any:
        """Wait for an event with this content and return the content; discard earlier events."""
        deadline = time.monotonic() + PATIENCE
        before: list[str] = []
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=1)
                assert line, f"the application has ended without {name}; before: {before}"
                event, content = json.loads(line)
                if event == name and expected.items() <= content.items():
                    return content
                before.append(event)
        raise AssertionError(f"no {name} {expected} within {PATIENCE} s; events: {before}")

    def end_of_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


class Gateway:
    """The gateways of the release."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed

    def kubectl(self, *arguments: str) -> str:
        return self.bed.cluster.kubectl("-n", SYSTEM, *arguments)

    def secret(self) -> str:
        return base64.b64decode(
            self.kubectl("get", "secret", f"{NAME}-jwt", "-o", "jsonpath={.data.jwt-secret}")
        ).decode()

    def token(self, subject: str) -> str:
        return jwt.encode(
            {"sub": subject, "exp": time.time() + 3600}, self.secret(), algorithm="HS256"
        )

    def pods(self) -> list[str]:
        """Return the names of the gateways' pods that are not terminating."""
        pods = json.loads(
            self.kubectl("get", "pods", "-l", "app.kubernetes.io/component=gateway", "-o", "json")
        )
        return [
            pod["metadata"]["name"]
            for pod in pods["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def clients(self, pod: str) -> float:
        """Return how many Socket.IO clients a gateway has."""
        with (
            self.bed.cluster.port_forward(f"pod/{pod}", 8081, "-n", SYSTEM) as port,
            request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer,
        ):
            lines = answer.read().decode().splitlines()
        return next(
            float(line.split()[1])
            for line in lines
            if line.startswith("wasession_gateway_clients ")
        )

    def ask(
        self, who: str, method: str, path: str, body: object = None, token: str | None = None
    ) -> Any:
        """Return JSON from one of the gateways; raises ``urllib.error.HTTPError``."""
        headers = {
            "Authorization": f"Bearer {token or self.token(who)}",
            "Content-Type": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        with self.bed.cluster.port_forward(f"service/{NAME}", 80, "-n", SYSTEM) as port:
            call = request.Request(
                f"http://127.0.0.1:{port}{path}", method=method, data=data, headers=headers
            )
            with request.urlopen(call, timeout=PATIENCE) as answer:  # noqa: S310
                text = answer.read().decode()
                return json.loads(text) if text else None

    @contextlib.contextmanager
    def application(self, what: str, who: str, argument: object) -> Iterator[Application]:
        application = Application(self.bed, what, URL, self.token(who), json.dumps(argument))
        try:
            yield application
        finally:
            application.close()

    def rolled_out(self) -> None:
        self.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=180s")


@pytest.fixture(scope="module")
def gateway(bed: Testbed) -> Iterator[Gateway]:
    chosen = {
        "namespace": NAMESPACE,
        "settings.subjectRate": 10 * RATE,
        "settings.addressRate": 10 * RATE,
    }
    values = ",".join(f"gateway.{name}={value}" for name, value in chosen.items())
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    bed.install_operator("--values", str(VALUES), "--set", values)
    program = f"--from-file={HERE / 'client' / 'client.py'}"
    bed.cluster.kubectl("-n", NAMESPACE, "create", "configmap", "client", program)
    bed.cluster.kubectl("-n", NAMESPACE, "apply", "-f", str(HERE / "client" / "pod.yaml"))
    bed.cluster.kubectl(
        "-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/client", "--timeout=120s"
    )
    yield Gateway(bed)
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)
    bed.install_operator()


@pytest.fixture(scope="module")
def linked(bed: Testbed, gateway: Gateway) -> Session:
    """Create and link Alice's session with her application."""
    with (
        gateway.application("listen", "alice", {"clientId": "shop", "create": True}) as application,
        bed.phone() as url,
    ):
        asyncio.run(Phone(url).scan(application.hears("qr", clientId="shop")["qr"], ME))
        application.hears("ready", clientId="shop", isRestored=False)
    [name] = bed.cluster.kubectl(
        "-n", NAMESPACE, "get", "wasessions", "-o", "jsonpath={.items[*].metadata.name}"
    ).split()
    return bed.session(name, NAMESPACE)


def test_messages_go_both_ways(bed: Testbed, gateway: Gateway, linked: Session) -> None:
    with (
        gateway.application("listen", "alice", {"clientId": "shop"}) as application,
        bed.phone() as url,
    ):
        application.hears("ready", clientId="shop")
        message = {"clientId": "shop", "to": FRIEND, "text": "through the gateway"}
        gateway.ask("alice", "POST", "/whatsapp/messages", message)
        delivered = asyncio.run(Phone(url).messages())
        assert "through the gateway" in [message.text for message in delivered]
        asyncio.run(Phone(url).send(FRIEND, ME, "and back"))
        assert application.hears("message", clientId="shop")["text"] == "and back"


def test_nobody_else_sees_it(gateway: Gateway, linked: Session) -> None:
    sessions = gateway.ask("alice", "GET", "/whatsapp/sessions")["items"]
    assert [session["clientId"] for session in sessions] == ["shop"]
    assert gateway.ask("bob", "GET", "/whatsapp/sessions")["items"] == []
    with pytest.raises(error.HTTPError) as refused:
        gateway.ask("bob", "GET", "/whatsapp/session-status/shop")
    assert refused.value.code == 404


def test_the_command_that_the_chart_names_makes_an_administrators_token(
    gateway: Gateway, linked: Session
) -> None:
    command = ["python", "-m", "wasession_gateway.issue_token", "--admin", "me"]
    token = gateway.kubectl("exec", f"deployment/{NAME}", "--", *command).strip()
    sessions = gateway.ask("me", "GET", "/whatsapp/sessions", token=token)["items"]
    assert [(session["owner"], session["clientId"]) for session in sessions] == [("alice", "shop")]


def test_the_console_is_whole(gateway: Gateway) -> None:
    with gateway.bed.cluster.port_forward(f"service/{NAME}", 80, "-n", SYSTEM) as port:
        with request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert b"<title>" in page.read()
            assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        with request.urlopen(f"http://127.0.0.1:{port}/socket.io-client.js", timeout=30) as script:
            assert b"Socket.IO v4" in script.read()


def test_a_client_survives_the_death_of_its_gateway(gateway: Gateway, linked: Session) -> None:
    """The other gateway sends what has happened in between."""
    with gateway.application("listen", "alice", {"clientId": "shop"}) as application:
        application.hears("ready", clientId="shop")
        [mine] = [pod for pod in gateway.pods() if gateway.clients(pod)]
        gateway.kubectl("delete", "pod", mine, "--grace-period=0", "--force")
        gateway.ask("alice", "POST", "/whatsapp/sessions/shop/suspend")
        application.hears("init", ok=True)
        application.hears("disconnected", clientId="shop", kind="Suspended")
        gateway.ask("alice", "POST", "/whatsapp/sessions/shop/resume")
        application.hears("ready", clientId="shop", isRestored=True)
    gateway.rolled_out()


def test_an_update_fails_no_request(gateway: Gateway, linked: Session) -> None:
    before, secret = gateway.pods(), gateway.secret()
    with gateway.application("load", "alice", RATE) as application:
        application.hears("started")
        gateway.kubectl("rollout", "restart", f"deployment/{NAME}")
        gateway.rolled_out()
        gateway.kubectl("wait", "--for=delete", *(f"pod/{pod}" for pod in before), "--timeout=120s")
        application.end_of_input()
        outcomes = application.hears("outcomes")
    assert outcomes.keys() == {"200"}
    assert outcomes["200"] > RATE
    assert not set(before) & set(gateway.pods())
    assert gateway.secret() == secret


def test_one_gateway_at_a_time_may_be_evicted(gateway: Gateway) -> None:
    budget = json.loads(gateway.kubectl("get", "poddisruptionbudget", NAME, "-o", "json"))
    assert budget["status"]["disruptionsAllowed"] == 1
    assert budget["status"]["currentHealthy"] == len(gateway.pods()) == 2


def test_deleted_with_its_login(gateway: Gateway, linked: Session) -> None:
    gateway.ask("alice", "DELETE", "/whatsapp/sessions/shop?logout=true&deleteVolume=true")
    linked.kubectl("wait", "--for=delete", f"wasession/{linked.name}", "--timeout=180s")
    label = f"wasession.dev/session={linked.name}"
    assert linked.kubectl("get", "pods,pvc", "-l", label, "-o", "name") == ""
