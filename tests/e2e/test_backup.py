"""A login outlives its volume and its namespace, and no two sessions ever have it at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from support import s3
from support.cluster import Cluster, images
from support.snapshots import driver as snapshots
from support.standin import Phone
from support.testbed import Session, Testbed

NAMESPACE, ELSEWHERE = "e2e-backup", "e2e-backup-elsewhere"
ME = "15557770003"
IDENTITY, STRANGER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
VALUES: dict[str, Any] = {
    "backups": {
        "store": f"s3://{s3.BUCKET}/e2e",
        "syncInterval": "5s",
        "env": {
            "AWS_ACCESS_KEY_ID": s3.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY,
            "AWS_ENDPOINT": "http://s3.s3.svc.cluster.local:9000",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        },
        "snapshots": {"enabled": True},
    }
}


@pytest.fixture(scope="module")
def store(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An S3 server in the cluster, and an operator that uses it."""
    bed.cluster.load_docker_image(images.build_program(s3.program(), "rclone-s3"))
    kubectl = bed.cluster.kubectl
    kubectl("apply", "-f", str(Path(s3.__file__).with_name("manifest.yaml")))
    kubectl("-n", "s3", "rollout", "status", "deployment/s3", "--timeout=120s")
    values = tmp_path_factory.mktemp("backups") / "values.json"
    values.write_text(json.dumps(VALUES))
    bed.install_operator("--values", str(values))
    yield
    bed.install_operator()
    kubectl("delete", "namespace", "s3")


@pytest.fixture(scope="module")
def class_name(bed: Testbed, store: None) -> Iterator[str]:
    """A class whose backups one key can decrypt, and whose pods reach the store."""
    of_s3 = {"matchLabels": {"kubernetes.io/metadata.name": "s3"}}
    of_standin = {"matchLabels": {"kubernetes.io/metadata.name": "standin"}}
    egress = [
        {"to": [{"namespaceSelector": of_s3}], "ports": [{"port": 9000}]},
        {"to": [{"namespaceSelector": of_standin}], "ports": [{"port": 8080}]},
    ]
    policy = {"recipients": [str(IDENTITY.to_public())]}
    with bed.session_class("backups", backupPolicy=policy, egress=egress) as name:
        yield name


@pytest.fixture
def driver(embedded_cluster: Cluster) -> Iterator[None]:
    """What takes VolumeSnapshots, and makes volumes from them."""
    with snapshots.running(embedded_cluster):
        yield


@pytest.fixture
def linked(bed: Testbed, class_name: str) -> Iterator[Session]:
    """A session with a phone, in a namespace that has the key."""
    create_namespace(bed)
    session = bed.create_session("sales", NAMESPACE, className=class_name, owner="demo")
    bed.link(session, ME)
    yield session
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)
    with bed.phone() as url:  # an account has few linked devices
        asyncio.run(Phone(url).logout(ME))


def create_namespace(bed: Testbed, namespace: str = NAMESPACE) -> None:
    bed.cluster.kubectl("create", "namespace", namespace)
    create_identity(bed, IDENTITY, namespace)


def create_identity(
    bed: Testbed, identity: pyrage.x25519.Identity, namespace: str = NAMESPACE
) -> None:
    secret = ("create", "secret", "generic", "wasession-backup-identity")
    bed.cluster.kubectl("-n", namespace, *secret, f"--from-literal=identity={identity}")


def back_up(session: Session, name: str, **spec: Any) -> None:
    session.create("WhatsAppSessionBackup", name, sessionName=session.name, **spec)
    until_completed(session, name)


def until_completed(session: Session, name: str) -> None:
    """Wait until a backup is Completed; one that the store alone knows has to appear first."""
    wanted = f"wasb/{name}"
    session.kubectl("wait", "--for=create", wanted, "--timeout=60s")
    session.kubectl("wait", "--for=jsonpath={.status.phase}=Completed", wanted, "--timeout=90s")


def restore(
    bed: Testbed, name: str, class_name: str, backup: str, namespace: str = NAMESPACE
) -> Session:
    bootstrap = {"fromBackup": {"name": backup}}
    return bed.create_session(
        name, namespace, className=class_name, owner="demo", bootstrap=bootstrap
    )


def suspend(session: Session, *, suspended: bool = True) -> None:
    patch = json.dumps({"spec": {"suspend": suspended}})
    session.kubectl("patch", "wasession", session.name, "--type=merge", "-p", patch)


def until_ready_without_a_qr(session: Session) -> None:
    with session.recorded_phases() as phases:
        session.wait_ready()
    assert "Authenticating" not in phases
    assert session.status["restored"] is True
    assert session.status["account"]["id"] == f"{ME}@c.us"


def test_a_login_outlives_its_namespace(bed: Testbed, linked: Session, class_name: str) -> None:
    """Nothing of it is left but the archive in the store, and what a person has in Git."""
    back_up(linked, "before")
    bed.cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
    create_namespace(bed)
    until_completed(linked, "before")
    again = restore(bed, "sales", class_name, "before")
    until_ready_without_a_qr(again)
    assert again.status["bootstrap"]["state"] == "Restored"
    assert bed.arrives(again, "after the namespace was lost")
    init = again.pod()["spec"]["initContainers"][0]
    assert "X-Amz-Signature" not in json.dumps(init), "what reads the archive is in no manifest"
    again.kubectl("delete", "pod", again.status["podName"])
    again.wait("jsonpath={.status.restorations}=2")
    again.wait_ready()
    assert "initContainers" not in again.pod()["spec"]


def test_a_copy_never_runs_beside_its_source(
    bed: Testbed, linked: Session, class_name: str
) -> None:
    back_up(linked, "copied")
    copy = restore(bed, "copy", class_name, "copied")
    copy.wait("jsonpath={.status.conditions[?(@.type=='Ready')].reason}=BackupSourceRunning")
    assert linked.status["phase"] == "Ready"
    suspend(linked)
    until_ready_without_a_qr(copy)
    suspend(linked, suspended=False)
    linked.wait("jsonpath={.status.conditions[?(@.type=='Ready')].reason}=LoginMoved")
    assert "podName" not in linked.status
    assert copy.status["phase"] == "Ready"
    copy.kubectl("delete", "wasession", "copy", "--timeout=60s")
    until_ready_without_a_qr(linked)


def test_a_login_moves_to_another_namespace(bed: Testbed, linked: Session, class_name: str) -> None:
    """One namespace exports it, the other one imports it, and it never runs in both."""
    back_up(linked, "leaving")
    create_namespace(bed, ELSEWHERE)
    try:
        plugin(bed, NAMESPACE, "export", "leaving", "--to", ELSEWHERE)
        plugin(bed, ELSEWHERE, "import", f"{NAMESPACE}/leaving")
        moved = restore(bed, "moved", class_name, "leaving", ELSEWHERE)
        moved.wait("jsonpath={.status.conditions[?(@.type=='Ready')].reason}=BackupSourceRunning")
        suspend(linked)
        until_ready_without_a_qr(moved)
    finally:
        bed.cluster.kubectl("delete", "namespace", ELSEWHERE)


def plugin(bed: Testbed, namespace: str, *arguments: str) -> None:
    """Run ``kubectl wasession ...``; raise ``CalledProcessError``."""
    command = [sys.executable, "-m", "wasession_cli", "-n", namespace, *arguments]
    subprocess.run([*command, "--kubeconfig", str(bed.cluster.kubeconfig_path)], check=True)


def test_a_wrong_key_is_explained_and_the_right_one_goes_on(
    bed: Testbed, linked: Session, class_name: str
) -> None:
    back_up(linked, "locked")
    suspend(linked)
    linked.wait_phase("Suspended")
    linked.kubectl("delete", "secret", "wasession-backup-identity")
    create_identity(bed, STRANGER)
    copy = restore(bed, "copy", class_name, "locked")
    copy.wait("jsonpath={.status.conditions[?(@.type=='Degraded')].reason}=BootstrapFailed")
    linked.kubectl("delete", "secret", "wasession-backup-identity")
    create_identity(bed, IDENTITY)
    until_ready_without_a_qr(copy)


def test_a_snapshot_of_a_running_session_brings_it_back(
    bed: Testbed, driver: None, linked: Session, class_name: str
) -> None:
    back_up(linked, "snapped", method="VolumeSnapshot")
    linked.kubectl("delete", "wasession", linked.name, "--timeout=60s")
    linked.kubectl("delete", "pvc", "--all", "--timeout=60s")
    again = restore(bed, "sales", class_name, "snapped")
    until_ready_without_a_qr(again)
    assert again.status["bootstrap"]["state"] == "Restored"
    assert bed.arrives(again, "after the volume was lost")
