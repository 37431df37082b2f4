"""A message reaches a stream of NATS JetStream, also if the broker or the pod was away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from support import nats as nats_server
from support.cluster import images
from support.standin import Phone
from support.testbed import Session, Testbed

NAMESPACE = "e2e-sinks"
ME, FRIEND = "15557770002", "15550001111"
STREAM, LOGIN = "WHATSAPP", "demo:demo-password"
PATIENCE = 90.0  # seconds
T = TypeVar("T")


@pytest.fixture(scope="module")
def broker(bed: Testbed) -> Iterator[None]:
    """A nats-server in the cluster, with an empty stream."""
    image = images.build_program(nats_server.program(), "nats-server")
    bed.cluster.load_docker_image(image)
    kubectl = bed.cluster.kubectl
    kubectl("apply", "-f", str(Path(nats_server.__file__).with_name("manifest.yaml")))
    until_broker_is_ready(bed)
    on_broker(bed, lambda stream: stream.add_stream(name=STREAM, subjects=["whatsapp.>"]))
    yield
    kubectl("delete", "namespace", "nats")


@pytest.fixture(scope="module")
def session(bed: Testbed, broker: None) -> Iterator[Session]:
    """Create a session with a sink, and link it."""
    kubectl = bed.cluster.kubectl
    kubectl("create", "namespace", NAMESPACE)
    networks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]  # of the cluster's Services
    of_nats = {"matchLabels": {"kubernetes.io/metadata.name": "nats"}}
    of_standin = {"matchLabels": {"kubernetes.io/metadata.name": "standin"}}
    egress = [
        {"to": [{"namespaceSelector": of_nats}], "ports": [{"port": 4222}]},
        {"to": [{"namespaceSelector": of_standin}], "ports": [{"port": 8080}]},
    ]
    policy = {"allowedNetworks": networks}
    with bed.session_class("sinks", deliveryPolicy=policy, egress=egress) as name:
        sink = {
            "name": "events",
            "nats": {
                "servers": ["nats://nats.nats.svc.cluster.local:4222"],
                "stream": STREAM,
                "credentials": "nats",
            },
            "events": ["message"],
        }
        literal = f"--from-literal=nats={LOGIN}"
        kubectl("-n", NAMESPACE, "create", "secret", "generic", "wasession-delivery", literal)
        spec = {"className": name, "owner": "demo", "sinks": [sink]}
        session = bed.create_session("sales", NAMESPACE, **spec)
        bed.link(session, ME)
        session.wait("condition=Delivering")
        yield session
        kubectl("delete", "namespace", NAMESPACE)


def on_broker(bed: Testbed, use: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    async def connected() -> T:
        user, password = LOGIN.split(":")
        with bed.cluster.port_forward("service/nats", 4222, "-n", "nats") as port:
            async with await nats.connect(
                f"nats://127.0.0.1:{port}", user=user, password=password
            ) as client:
                return await use(client.jetstream())

    return asyncio.run(connected())


def until_broker_is_ready(bed: Testbed) -> None:
    bed.cluster.kubectl("-n", "nats", "rollout", "status", "deployment/nats", "--timeout=120s")


def tell(bed: Testbed, text: str) -> None:
    with bed.phone() as url:
        asyncio.run(Phone(url).send(FRIEND, ME, text))


async def read(stream: JetStreamContext) -> list[RawStreamMsg]:
    state = (await stream.stream_info(STREAM)).state
    numbers = range(max(state.first_seq, 1), state.last_seq + 1)
    return [await stream.get_msg(STREAM, number) for number in numbers]


def until_stored(bed: Testbed, *texts: str) -> list[RawStreamMsg]:
    """Wait until the stream has these messages and no others; return them."""
    deadline, found = time.monotonic() + PATIENCE, list[str]()
    while time.monotonic() < deadline:
        messages = on_broker(bed, read)
        events = [json.loads(message.data or b"") for message in messages]
        found = [event["data"]["text"] for event in events]
        if found == [*texts]:
            return messages
        time.sleep(0.5)  # between two looks
    pytest.fail(f"stored {found}, not {texts}")


def test_a_message_is_stored_with_its_id(bed: Testbed, session: Session) -> None:
    tell(bed, "hello")
    [message] = until_stored(bed, "hello")
    assert message.subject == f"whatsapp.{NAMESPACE}.sales.message"
    event = json.loads(message.data or b"")
    assert event["source"] == f"/namespaces/{NAMESPACE}/whatsappsessions/sales"
    assert (message.headers or {})["Nats-Msg-Id"] == event["id"]


def test_what_came_while_the_broker_was_away_is_stored_once_also_after_the_pod_was_killed(
    bed: Testbed, session: Session
) -> None:
    kubectl = bed.cluster.kubectl
    kubectl("-n", "nats", "scale", "deployment/nats", "--replicas=0")
    tell(bed, "one")
    tell(bed, "two")
    session.wait("condition=Delivering=false")
    assert session.condition("Delivering")["reason"] == "DeliveryFailing"
    restarts = session.status["restarts"]["count"]
    session.kubectl("delete", "pod", session.status["podName"], "--grace-period=0", "--force")
    session.wait(f"jsonpath={{.status.restarts.count}}={restarts + 1}")
    session.wait_ready()
    kubectl("-n", "nats", "scale", "deployment/nats", "--replicas=1")
    until_broker_is_ready(bed)
    tell(bed, "three")
    until_stored(bed, "hello", "one", "two", "three")
    session.wait("condition=Delivering")
