"""The demo's steps once the cluster is up. Each prints what a user would see."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import segno
from support.cluster import Node
from support.standin import Phone
from support.testbed import Session, Testbed

MANIFEST = Path(__file__).with_name("session.yaml")
PHONE = "15551234567"
FRIEND = "15550001111"
_started = time.monotonic()


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print the step, the time since the start, and the time that it took."""
    began = time.monotonic()
    print(f"[{began - _started:6.1f} s] {title} ...", flush=True)
    yield
    ended = time.monotonic()
    print(f"[{ended - _started:6.1f} s]   done in {ended - began:.1f} s", flush=True)


def pair(bed: Testbed, session: Session) -> None:
    with step("kubectl apply -f session.yaml, until its pod shows a QR"):
        session.apply(MANIFEST)
        session.wait_phase("Authenticating")
        code = session.pairing_code()
        segno.make(code).terminal(sys.stdout, compact=True)
    with step("the phone scans it"), bed.phone() as url:
        asyncio.run(Phone(url).scan(code, PHONE))
        session.wait_ready()
    show(session)


def send(bed: Testbed, session: Session, text: str) -> None:
    with step(f"send a message: {text!r}"), bed.phone() as url:
        session.send(FRIEND, text)
        arrived = asyncio.run(Phone(url).messages())
        assert any(message.text == text for message in arrived), f"{text!r} did not arrive"


def lose_pod(session: Session) -> None:
    before = session.pod()["metadata"]["uid"]
    restorations = session.status["restorations"]
    with step("delete the pod, until the session is Ready again"):
        session.kubectl("delete", "pod", session.status["podName"])
        restored(session, restorations)
    assert session.pod()["metadata"]["uid"] != before, "the pod is still the old one"
    show(session)


def lose_power(bed: Testbed, session: Session, node: Node) -> None:
    restorations = session.status["restorations"]
    with step(f"{node.name} loses power"):
        node.power_off()
        bed.cluster.kubectl(
            "wait", "--for=condition=Ready=Unknown", f"node/{node.name}", "--timeout=60s"
        )
    with step(f"{node.name} is back"):
        node.power_on()
        bed.cluster.kubectl("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=60s")
    with step("the session is Ready again"):
        restored(session, restorations)
    show(session)


def restored(session: Session, restorations: int) -> None:
    """Wait for the next restoration, which counts only if the session is Ready without a new QR."""
    with session.recorded_phases() as phases:
        session.wait(f"jsonpath={{.status.restorations}}={restorations + 1}")
        session.wait_ready()
    assert "Authenticating" not in phases, f"a QR was shown: {phases}"


def show(session: Session) -> None:
    print(session.kubectl("get", "wasessions"), flush=True)
