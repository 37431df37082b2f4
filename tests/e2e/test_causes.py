"""External causes show up as a reason, a message and an Event, and go away with their cause."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import images
from support.testbed import Session, Testbed

NAMESPACE = "e2e-causes"


@pytest.fixture(scope="module", autouse=True)
def namespace(bed: Testbed) -> Iterator[None]:
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    yield
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def create(bed: Testbed, directory: Path, name: str, **spec: Any) -> Session:
    manifest = {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSession",
        "metadata": {"name": name},
        "spec": spec,
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest))
    session = bed.session(name, NAMESPACE)
    session.apply(path)
    return session


def wait_condition(session: Session, kind: str, status: str, reason: str) -> dict[str, Any]:
    """Wait until a condition has this status and reason; return it."""
    path = f"{{.status.conditions[?(@.type=='{kind}')].reason}}"
    session.wait(f"jsonpath={path}={reason}")
    condition = session.condition(kind)
    assert condition["status"] == status
    assert condition["message"]
    return condition


def wait_event(session: Session, reason: str) -> None:
    """Wait for an Event with this reason about the session."""
    kubeconfig = f"--kubeconfig={session.cluster.kubeconfig_path}"
    selector = f"--field-selector=involvedObject.name={session.name},reason={reason}"
    command = ["kubectl", kubeconfig, "-n", NAMESPACE, "get", "events", selector]
    command += ["--watch", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline().startswith("event/")
        finally:
            watch.terminate()


def test_whatsapp_that_cannot_be_reached(bed: Testbed, tmp_path: Path) -> None:
    url = "http://later.standin.svc"
    flag = f"--unsafely-treat-insecure-origin-as-secure={url}"
    with bed.session_class("e2e-unreachable", whatsappURL=url, extraArgs=[flag]) as name:
        session = create(bed, tmp_path, "unreachable", className=name)
        check_unreachable(bed, session, tmp_path)


def check_unreachable(bed: Testbed, session: Session, tmp_path: Path) -> None:
    condition = wait_condition(session, "Ready", "False", "WhatsAppUnreachable")
    assert "cannot be opened" in condition["message"]
    wait_event(session, "WhatsAppUnreachable")
    service = json.loads(
        bed.cluster.kubectl("-n", "standin", "get", "service", "standin", "-o", "json")
    )
    ports, selector = service["spec"]["ports"], service["spec"]["selector"]
    later = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "later", "namespace": "standin"},
        "spec": {
            "selector": selector,
            "ports": [{"port": 80, "targetPort": ports[0]["targetPort"]}],
        },
    }
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(later))
    bed.cluster.kubectl("apply", "-f", str(path))
    session.wait_phase("Authenticating")
    wait_condition_gone(session)


def test_a_storage_class_that_is_not_there(bed: Testbed, tmp_path: Path) -> None:
    session = create(bed, tmp_path, "classless", storage={"storageClassName": "later"})
    condition = wait_condition(session, "StorageReady", "False", "VolumePending")
    session.wait("jsonpath={.status.conditions[?(@.type=='Degraded')].reason}=VolumePending")
    assert "later" in session.condition("StorageReady")["message"], condition
    wait_event(session, "VolumePending")
    classes = json.loads(bed.cluster.kubectl("get", "storageclasses", "-o", "json"))["items"]
    default = next(
        c
        for c in classes
        if "storageclass.kubernetes.io/is-default-class" in c["metadata"].get("annotations", {})
    )
    later = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "later"},
        "provisioner": default["provisioner"],
        "volumeBindingMode": default["volumeBindingMode"],
    }
    path = tmp_path / "class.yaml"
    path.write_text(yaml.safe_dump(later))
    bed.cluster.kubectl("apply", "-f", str(path))
    session.wait_phase("Authenticating")
    wait_condition_gone(session)


def test_an_image_that_cannot_be_pulled(bed: Testbed, tmp_path: Path) -> None:
    image = images.name("session-pod").replace(":dev", ":later")
    with bed.session_class("e2e-imageless", image=image) as name:
        session = create(bed, tmp_path, "imageless", className=name)
        condition = wait_condition(session, "PodReady", "False", "ImagePullBackOff")
        assert "later" in condition["message"]
        wait_event(session, "ImagePullBackOff")
        bed.cluster.load_docker_image(images.tag("session-pod", image))
        session.wait_phase("Authenticating", timeout=180)
        wait_condition_gone(session)


def wait_condition_gone(session: Session) -> None:
    session.wait("jsonpath={.status.conditions[?(@.type=='Degraded')].status}=False")
