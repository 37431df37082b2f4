"""What happens to a session on a real cluster: it recovers by itself, or says what it needs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib import error

import pytest
import yaml
from support.cluster import Cluster
from support.cluster.waiting import wait_for
from support.standin import Phone
from support.testbed import SYSTEM, Session, Testbed
from wasession_api.names import token_secret_name

EXAMPLE = Path(__file__).parents[1] / "demo" / "session.yaml"
NAMESPACE = "e2e-operations"
PHONE = "15552223333"
# Not on the stand-in's node if possible, so that the session's node can be lost without it.
APART = {
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "podAffinityTerm": {
                    "labelSelector": {"matchLabels": {"app": "standin"}},
                    "namespaces": ["standin"],
                    "topologyKey": "kubernetes.io/hostname",
                },
            }
        ]
    }
}


def link(bed: Testbed, session: Session) -> None:
    session.wait_phase("Authenticating")
    with bed.phone() as url:
        asyncio.run(Phone(url).scan(session.pairing_code(), PHONE))
    session.wait_ready()


def annotate(session: Session, name: str, value: str) -> None:
    session.kubectl(
        "annotate", "wasession", session.name, f"wasession.dev/{name}={value}", "--overwrite"
    )


def change(session: Session, **spec: object) -> None:
    session.kubectl(
        "patch", "wasession", session.name, "--type=merge", "-p", json.dumps({"spec": spec})
    )


def await_restoration(session: Session, restorations: int) -> None:
    with session.recorded_phases() as phases:
        session.wait(f"jsonpath={{.status.restorations}}={restorations + 1}", timeout=180)
        session.wait_ready()
    assert "Authenticating" not in phases, f"a QR was shown: {phases}"


@pytest.fixture(scope="module")
def session(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"] = {"name": "ops"}
    path = tmp_path_factory.mktemp("operations") / "ops.yaml"
    with bed.session_class("e2e-apart", podTemplate={"spec": {"affinity": APART}}) as name:
        manifest["spec"]["className"] = name
        path.write_text(yaml.safe_dump(manifest))
        session = bed.session("ops", NAMESPACE)
        session.apply(path)
        link(bed, session)
        yield session
        bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def test_a_suspended_session_is_resumed_without_a_qr(session: Session) -> None:
    before, restorations = session.status["restarts"]["count"], session.status["restorations"]
    change(session, suspend=True)
    session.wait_phase("Suspended")
    session.kubectl(
        "wait", "--for=delete", "pod", "-l", "wasession.dev/session=ops", "--timeout=60s"
    )
    assert (
        session.kubectl("get", "pvc", session.status["pvcName"], "-o", "jsonpath={.status.phase}")
        == "Bound"
    )
    change(session, suspend=False)
    await_restoration(session, restorations)
    assert session.status["restarts"]["count"] == before
    assert session.status["lastShutdown"]["graceful"] is True


def test_a_new_token_reaches_the_pod_without_a_restart(session: Session) -> None:
    pod = session.pod()["metadata"]["uid"]
    token = session.kubectl(
        "get", "secret", token_secret_name(session.name), "-o", "jsonpath={.data.token}"
    )
    annotate(session, "rotate-token", "1")
    session.wait("jsonpath={.status.tokenRotation.request}=1")
    session.wait("jsonpath={.status.tokenRotation.done}=true")
    assert session.status["tokenEpoch"] == 1
    assert (
        session.kubectl(
            "get", "secret", token_secret_name(session.name), "-o", "jsonpath={.data.previousToken}"
        )
        == token
    )

    def accepted() -> bool:
        try:
            return bool(session.call("GET", "/v1/state")["phase"] == "Ready")
        except error.HTTPError as refused:
            if refused.code != 401:  # the pod has not read it yet
                raise
            return False

    wait_for("the pod to know its new token", accepted, 120)
    assert session.pod()["metadata"]["uid"] == pod
    session.wait_ready()
    operators = ("-n", SYSTEM, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1")
    outputs = [
        session.kubectl("get", "wasession", session.name, "-o", "yaml"),
        session.kubectl("get", "pod", session.status["podName"], "-o", "yaml"),
        session.kubectl("get", "events", "-o", "yaml"),
        session.cluster.kubectl(*operators),
        session.kubectl("logs", session.status["podName"]),
    ]
    secret = json.loads(
        session.kubectl("get", "secret", token_secret_name(session.name), "-o", "json")
    )["data"]
    for token in secret.values():
        assert not any(
            base64.b64decode(token).decode() in text or token in text for text in outputs
        ), "a token is nobody's to read"


def test_a_logout_is_done_once(bed: Testbed, session: Session) -> None:
    annotate(session, "logout", "1")
    session.wait("jsonpath={.status.logout.done}=true")
    assert session.status["sessionValid"] is False
    assert session.status["lastDisconnect"]["kind"] == "Logout"
    link(bed, session)  # with the annotation still there
    assert session.status["sessionValid"] is True


def test_an_evicted_pod_comes_back_without_a_qr(session: Session, tmp_path: Path) -> None:
    restorations, pod = session.status["restorations"], session.pod()["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["name"], "namespace": NAMESPACE},
    }
    path = tmp_path / "eviction.json"
    path.write_text(json.dumps(eviction))
    session.kubectl(
        "create",
        "--raw",
        f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['name']}/eviction",
        "-f",
        str(path),
    )
    await_restoration(session, restorations)
    assert session.status["restarts"]["reason"] == "Evicted"


def test_a_node_that_is_given_up_loses_its_session_to_another(
    session: Session, embedded_cluster: Cluster
) -> None:
    """And so does the operator that acts, if it was on that node."""
    restorations = session.status["restorations"]
    lost = next(node for node in embedded_cluster.nodes if node.name == session.status["nodeName"])
    lost.power_off()
    session.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{lost.name}", "--timeout=60s")
    session.kubectl(
        "taint", "node", lost.name, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )
    try:
        await_restoration(session, restorations)
        assert session.status["nodeName"] != lost.name
    finally:
        lost.power_on()
        embedded_cluster.wait_ready(lost)
        session.kubectl("taint", "node", lost.name, "node.kubernetes.io/out-of-service-")


def test_a_lost_volume_is_replaced_only_on_a_persons_word(session: Session) -> None:
    claim, uid = session.status["pvcName"], session.status["pvcUID"]
    session.kubectl("delete", "pvc", claim, "--wait=false")
    session.wait("jsonpath={.status.conditions[?(@.type=='Degraded')].reason}=VolumeTerminating")
    assert session.status["phase"] == "Ready", "it works until its pod ends"
    session.kubectl("delete", "pod", session.status["podName"])
    session.wait("jsonpath={.status.conditions[?(@.type=='StorageReady')].reason}=VolumeLost")
    assert session.status["phase"] == "Failed"
    assert session.status["sessionValid"] is True
    assert session.kubectl("get", "pvc", "-o", "name") == ""
    annotate(session, "accept-data-loss", session.status["volumeLoss"]["nonce"])
    session.wait_phase("Authenticating")
    assert session.status["sessionValid"] is False
    assert session.status["pvcUID"] != uid
