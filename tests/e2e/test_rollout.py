"""Rollouts of a class over real sessions: what hurts them hurts the canary alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cluster import images
from support.cluster.waiting import wait_for
from support.testbed import Session, Testbed, plugin_path
from wasession_pod.settings import DEVELOPMENT_WA_JS

NAMESPACE, CLASS = "e2e-rollout", "rolled-out"
COUNT = int(os.environ.get("ROLLOUT_SESSIONS", "2"))
IS_DRILL = "ROLLOUT_SESSIONS" in os.environ  # `make rollout-drills`
every_way = pytest.mark.skipif(not IS_DRILL, reason="one way to be hurt is enough but in drills")
LOGS_OUT = b"""
const timer = setInterval(() => {
  if (!WPP.conn.isMainReady()) return;
  clearInterval(timer);
  WPP.conn.logout();
}, 1000);"""
DEAF = b"""
const hidden = (object, hide) => new Proxy(object, {get: (it, name) => hide(name, it[name])});
const whatsapp = hidden(WPP.whatsapp, (name, value) => name === 'MsgStore' ? undefined : value);
window.WPP = hidden(WPP, (name, value) => name === 'whatsapp' ? whatsapp : value);"""
FAILS = b"throw new Error('of this wa-js');"
Change = Callable[[Testbed, Path], dict[str, Any]]  # returns what is patched of the class's spec


@pytest.fixture(scope="module")
def sessions(bed: Testbed) -> Iterator[list[Session]]:
    """Ready sessions of a class that soaks for as long as a test takes."""
    rollout = {"soak": "1h", "steps": [2]}
    template = {"updateStrategy": "RollingUpdate"}
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    with bed.session_class(CLASS, template=template, rollout=rollout):
        made = [
            bed.create_session(f"session-{number}", NAMESPACE, className=CLASS)
            for number in range(COUNT)
        ]
        for number, session in enumerate(made):
            bed.link(session, account(number))
        until_phase(bed, "Complete")
        yield made
        bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def account(number: int) -> str:
    return f"1555888{number:04}"


def wa_js(name: str, addition: bytes) -> Change:
    """Return a change of wa-js to another one, which does this in addition."""

    def change(bed: Testbed, directory: Path) -> dict[str, Any]:
        script = DEVELOPMENT_WA_JS.read_bytes() + b";(() => {" + addition + b"})();"
        file = directory / "wa-js"
        file.write_bytes(gzip.compress(script))
        config_map = ("create", "configmap", name, f"--from-file={file}")
        bed.cluster.kubectl("-n", NAMESPACE, *config_map)
        return {"waJS": {"configMapName": name, "sha256": hashlib.sha256(script).hexdigest()}}

    return change


def image_that_exits(_bed: Testbed, _directory: Path) -> dict[str, Any]:
    """The operator's: it does not know a session pod's arguments."""
    return {"image": images.name("operator")}


def patch_class(bed: Testbed, **spec: Any) -> None:
    bed.cluster.kubectl("patch", "wasc", CLASS, "--type=merge", "-p", json.dumps({"spec": spec}))


def rollout_of(bed: Testbed) -> dict[str, Any]:
    read = json.loads(bed.cluster.kubectl("get", "wasc", CLASS, "-o", "json"))
    rollouts = read.get("status", {}).get("rollouts", [])
    return dict(rollouts[0]) if rollouts else {}


def until_phase(bed: Testbed, phase: str, timeout: int = 300) -> dict[str, Any]:
    """Wait until the rollout is in a phase, and return how far it is."""
    wanted = f"--for=jsonpath={{.status.rollouts[0].phase}}={phase}"
    bed.cluster.kubectl("wait", wanted, f"wasc/{CLASS}", f"--timeout={timeout}s")
    return rollout_of(bed)


def undo(bed: Testbed) -> None:
    of_user = {"KUBECONFIG": str(bed.cluster.kubeconfig_path), "PATH": plugin_path()}
    command = ["kubectl", "wasession", "rollout", "undo", CLASS]
    subprocess.run(command, env=os.environ | of_user, check=True)


@contextmanager
def only_the_canary_is_touched(
    bed: Testbed, sessions: list[Session]
) -> Iterator[Callable[[], Session]]:
    """Yield a function that returns the session whose pod is another one than before."""
    before = {session.name: session.status["podUID"] for session in sessions}

    def canary() -> Session:
        name = rollout_of(bed)["halted"]["session"].partition("/")[2]
        return bed.session(name, NAMESPACE)

    yield canary
    hurt = canary().name
    for session in sessions:
        if session.name != hurt:
            status = session.status
            assert (status["podUID"], status["phase"]) == (before[session.name], "Ready")
            assert status["sessionValid"]


@pytest.mark.parametrize(
    ("change", "logs_out"),
    [
        pytest.param(wa_js("wa-js-logs-out", LOGS_OUT), True, id="logs out"),
        pytest.param(wa_js("wa-js-deaf", DEAF), False, id="deaf", marks=every_way),
        pytest.param(wa_js("wa-js-fails", FAILS), False, id="fails", marks=every_way),
        pytest.param(image_that_exits, False, id="exits", marks=every_way),
    ],
)
def test_at_most_the_canary_is_hurt(
    bed: Testbed, sessions: list[Session], tmp_path: Path, change: Change, logs_out: bool
) -> None:
    with only_the_canary_is_touched(bed, sessions) as canary:
        patch_class(bed, **change(bed, tmp_path))
        halted = until_phase(bed, "Halted")["halted"]
        hurt = canary()
    print(f"halted by {halted['session']}: {halted['reason']}: {halted['message']}")
    assert hurt.status["sessionValid"] is not logs_out
    undo(bed)
    if logs_out:
        bed.link(hurt, account(sessions.index(next(s for s in sessions if s.name == hurt.name))))
    until_phase(bed, "Complete")
    hurt.wait_ready()


def test_a_good_one_reaches_all_without_a_qr(
    bed: Testbed, sessions: list[Session], tmp_path: Path
) -> None:
    before = [session.status["podUID"] for session in sessions]
    stable = rollout_of(bed)["stable"]["name"]
    patch_class(bed, rollout={"soak": "5s"}, **wa_js("wa-js-good", b"")(bed, tmp_path))
    wait_for("the rollout to be complete", lambda: rollout_of(bed)["stable"]["name"] != stable, 300)
    rollout = rollout_of(bed)
    assert rollout["phase"] == "Complete"
    assert (rollout["updated"], rollout["total"]) == (COUNT, COUNT)
    for session, pod in zip(sessions, before, strict=True):
        session.wait_ready()
        status = session.status
        assert status["podUID"] != pod
        assert status["restored"], "no QR"
        assert bed.arrives(session, f"from {session.name}, after the rollout")
