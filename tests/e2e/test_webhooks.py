"""A message reaches an application's endpoint, also if that was away or the pod was killed."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from support.standin import Phone
from support.standin.receiver import Delivered
from support.testbed import Session, Testbed

NAMESPACE = "e2e-webhooks"
ME, FRIEND = "15557770001", "15550001111"
KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PATIENCE = 90.0  # seconds
T = TypeVar("T")


@pytest.fixture(scope="module")
def session(bed: Testbed) -> Iterator[Session]:
    """Create a session with a webhook, and link it."""
    kubectl = bed.cluster.kubectl
    kubectl("create", "namespace", NAMESPACE)
    networks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]  # of the cluster's Services
    with bed.session_class("webhooks", deliveryPolicy={"allowedNetworks": networks}) as name:
        webhook = {
            "name": "crm",
            "url": "http://standin.standin.svc.cluster.local/hooks/crm",
            "signingKey": "crm",
            "events": ["message"],
        }
        secret = ("create", "secret", "generic", "wasession-delivery", f"--from-literal=crm={KEY}")
        kubectl("-n", NAMESPACE, *secret)
        spec = {"className": name, "owner": "demo", "webhooks": [webhook]}
        session = bed.create_session("sales", NAMESPACE, **spec)
        bed.link(session, ME)
        session.wait("condition=Delivering")
        yield session
        kubectl("delete", "namespace", NAMESPACE)


def on_phone(bed: Testbed, use: Callable[[Phone], Coroutine[Any, Any, T]]) -> T:
    with bed.phone() as url:
        return asyncio.run(use(Phone(url)))


def tell(bed: Testbed, text: str) -> None:
    on_phone(bed, lambda phone: phone.send(FRIEND, ME, text))


def answer(bed: Testbed, status: int) -> None:
    on_phone(bed, lambda phone: phone.answer("crm", status))


def until_delivered(bed: Testbed, *texts: str) -> list[Delivered]:
    """Wait until the endpoint was told these texts, each under one ID; return its requests."""
    deadline, found = time.monotonic() + PATIENCE, list[Delivered]()
    while time.monotonic() < deadline:
        found = on_phone(bed, lambda phone: phone.delivered("crm"))
        found = [one for one in found if one.body["type"] == "dev.wasession.message"]
        told = {one.headers["webhook-id"]: one.body["data"]["text"] for one in found}
        if list(told.values()) == [*texts]:
            return found
        time.sleep(0.5)  # between two looks
    pytest.fail(f"told {[one.body for one in found]}, not {texts}")


def test_a_message_is_told_signed(bed: Testbed, session: Session) -> None:
    answer(bed, 200)
    tell(bed, "hello")
    [delivered] = until_delivered(bed, "hello")
    assert delivered.body["type"] == "dev.wasession.message"
    assert delivered.body["source"] == f"/namespaces/{NAMESPACE}/whatsappsessions/sales"
    assert delivered.headers["webhook-signature"].startswith("v1,")


def test_an_endpoint_that_was_away_is_told_later_also_after_the_pod_was_killed(
    bed: Testbed, session: Session
) -> None:
    answer(bed, 503)
    tell(bed, "one")
    tell(bed, "two")
    session.wait("condition=Delivering=false")
    assert session.condition("Delivering")["reason"] == "DeliveryFailing"
    assert session.condition("Degraded")["status"] == "True"
    restarts = session.status["restarts"]["count"]
    session.kubectl("delete", "pod", session.status["podName"], "--grace-period=0", "--force")
    session.wait(f"jsonpath={{.status.restarts.count}}={restarts + 1}")
    session.wait_ready()
    answer(bed, 200)
    tell(bed, "three")
    until_delivered(bed, "one", "two", "three")
    session.wait("condition=Delivering")


def test_a_change_of_webhooks_restarts_no_pod(bed: Testbed, session: Session) -> None:
    pod = session.status["podUID"]
    answer(bed, 200)
    other = {"op": "replace", "path": "/spec/webhooks/0/name", "value": "other"}
    session.kubectl("patch", "wasession", "sales", "--type=json", "-p", json.dumps([other]))
    session.wait("jsonpath={.status.delivery[0].name}=other")
    tell(bed, "four")
    until_delivered(bed, "four")
    assert session.status["podUID"] == pod
