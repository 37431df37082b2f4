"""A session on a real cluster: linked once, then restored without a QR after any restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import Cluster
from support.standin import Phone
from support.testbed import Session, Testbed

EXAMPLE = Path(__file__).parents[1] / "demo" / "session.yaml"
NAMESPACE = "e2e-session"


def create(bed: Testbed, directory: Path, name: str, **spec: Any) -> Session:
    """Create the demo's session under another name, in this module's namespace."""
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"] = {"name": name}
    manifest["spec"] |= spec
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest))
    session = bed.session(name, NAMESPACE)
    session.apply(path)
    return session


def await_restoration(session: Session, restorations: int) -> list[str]:
    """Wait until the session is restored once more; return the phases on the way."""
    with session.recorded_phases() as phases:
        session.wait(f"jsonpath={{.status.restorations}}={restorations + 1}")
        session.wait_ready()
    return phases


@pytest.fixture(scope="module")
def paired(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Create a session, link it with a phone and send its first message."""
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    session = create(bed, tmp_path_factory.mktemp("session"), "paired")
    bed.link(session, "15551234567")
    assert bed.arrives(session, "before any restart")
    yield session
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def test_status_of_a_ready_session(paired: Session) -> None:
    status = paired.status
    assert status["phase"] == "Ready"
    assert status["accountStatus"] == "ready"
    assert status["sessionValid"] is True
    assert status["isAuthenticated"] is True
    assert status["authState"] == "CONNECTED"
    assert status["account"]["id"] == "15551234567@c.us"
    assert status["observedGeneration"] == paired.resource["metadata"]["generation"]
    assert status["lastConnected"].endswith("Z")
    assert "pairing" not in status or not status["pairing"]["available"]
    for kind in ("Ready", "PodReady", "StorageReady", "Authenticated"):
        assert paired.condition(kind)["status"] == "True", kind


def test_kubectl_get_shows_it(paired: Session) -> None:
    header, row = paired.kubectl("get", "wasessions").splitlines()
    assert header.split()[:4] == ["NAME", "PHASE", "VALID", "LAST"]
    assert row.split()[:3] == ["paired", "Ready", "true"]


def test_deleted_pod_comes_back_without_a_qr(bed: Testbed, paired: Session) -> None:
    before, restorations = paired.pod()["metadata"]["uid"], paired.status["restorations"]
    paired.kubectl("delete", "pod", paired.status["podName"])
    phases = await_restoration(paired, restorations)
    assert paired.pod()["metadata"]["uid"] != before
    assert "Authenticating" not in phases
    assert paired.status["restored"] is True
    assert paired.condition("Restored")["status"] == "True"
    assert bed.arrives(paired, "after the pod was deleted")


def test_killed_pod_comes_back_without_a_qr(bed: Testbed, paired: Session) -> None:
    restorations = paired.status["restorations"]
    paired.kubectl("delete", "pod", paired.status["podName"], "--grace-period=0", "--force")
    phases = await_restoration(paired, restorations)
    assert "Authenticating" not in phases
    assert bed.arrives(paired, "after the pod was killed")


def test_node_without_power_comes_back_without_a_qr(
    bed: Testbed, paired: Session, embedded_cluster: Cluster
) -> None:
    restorations, pod = paired.status["restorations"], paired.pod()["metadata"]["uid"]
    node = next(node for node in embedded_cluster.nodes if node.name == paired.status["nodeName"])
    node.power_off()
    paired.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{node.name}", "--timeout=60s")
    paired.wait("condition=Ready=false", timeout=60)
    node.power_on()
    phases = await_restoration(paired, restorations)
    assert "Authenticating" not in phases
    assert paired.pod()["metadata"]["uid"] == pod, "a node that comes back keeps its pods"
    assert bed.arrives(paired, "after the node lost power")


def test_whole_cluster_comes_back_without_a_qr(
    bed: Testbed, paired: Session, embedded_cluster: Cluster
) -> None:
    restorations = paired.status["restorations"]
    embedded_cluster.stop(keep_disk=True)
    embedded_cluster.start()
    phases = await_restoration(paired, restorations)
    assert "Authenticating" not in phases
    assert bed.arrives(paired, "after the whole cluster was restarted")


def test_operator_restart_changes_nothing(bed: Testbed, paired: Session) -> None:
    before, pod = paired.status, paired.pod()["metadata"]["uid"]
    bed.cluster.kubectl("-n", "wasession-system", "rollout", "restart", "deployment")
    bed.cluster.kubectl(
        "-n", "wasession-system", "rollout", "status", "deployment", "--timeout=120s"
    )
    paired.kubectl(
        "patch", "wasession", paired.name, "--type=merge", "-p", '{"spec": {"owner": "somebody"}}'
    )
    generation = paired.resource["metadata"]["generation"]
    # The new operator has observed the change.
    paired.wait(f"jsonpath={{.status.observedGeneration}}={generation}")
    paired.wait_ready()
    assert paired.pod()["metadata"]["uid"] == pod
    assert paired.status["restorations"] == before["restorations"]
    assert paired.status["restarts"] == before["restarts"]


def test_a_logout_on_the_phone_is_not_restored(
    bed: Testbed, paired: Session, tmp_path: Path
) -> None:
    other = create(bed, tmp_path, "unlinked")
    bed.link(other, "15557654321")
    with bed.phone() as url:
        asyncio.run(Phone(url).logout("15557654321"))
    other.wait("jsonpath={.status.lastDisconnect.kind}=Logout")
    other.wait("jsonpath={.status.sessionValid}=false")
    assert paired.status["phase"] == "Ready", "one session's logout is nobody else's"


def test_delete_keeps_the_volume_and_a_new_session_adopts_it(
    bed: Testbed, paired: Session, tmp_path: Path
) -> None:
    volume = paired.status["pvcName"]
    paired.kubectl("delete", "wasession", paired.name, "--timeout=60s")
    label = f"wasession.dev/session={paired.name}"
    assert paired.kubectl("get", "pods", "-l", label, "-o", "name") == ""
    assert paired.kubectl("get", "pvc", volume, "-o", "jsonpath={.status.phase}") == "Bound"
    # No pod has started since the owner was changed: the volume still records the first one.
    again = create(bed, tmp_path, paired.name, owner="somebody")
    again.wait_ready()
    assert again.status["restored"] is True
    assert bed.arrives(again, "from the retained volume")
