"""Sessions where a platform restricts pods: Pod Security, OpenShift, a company's authority."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.certificate_authority import CertificateAuthority
from support.cluster import Cluster
from support.standin import Phone
from support.testbed import CHART, SYSTEM, Session, Testbed

HERE = Path(__file__).parent
DEMO = HERE.parent / "demo"
NAMESPACE = "e2e-pod-security"
KUBERNETES = "1.34.0"
ENFORCED = ("enforce=restricted", "enforce-version=latest")
GATEWAY = f"gateway.enabled=true,gateway.namespace={NAMESPACE},gateway.replicas=1"
# What OpenShift's restricted-v2 SCC sets, with IDs of the namespace's range. The group is that of
# a user that the image does not have.
SCC = {"runAsUser": 1000660000, "runAsGroup": 0, "fsGroup": 1000660000}
STANDIN = f"standin-tls.{NAMESPACE}.svc"


@pytest.fixture(scope="module", autouse=True)
def namespace(bed: Testbed) -> Iterator[None]:
    """Create a namespace whose pods have to meet the Pod Security Standard ``restricted``."""
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    labels = (f"pod-security.kubernetes.io/{label}" for label in ENFORCED)
    bed.cluster.kubectl("label", "namespace", NAMESPACE, *labels)
    yield
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def create(bed: Testbed, directory: Path, name: str, **spec: Any) -> Session:
    manifest = yaml.safe_load((DEMO / "session.yaml").read_text())
    manifest["metadata"] = {"name": name}
    manifest["spec"] |= spec
    session = bed.session(name, NAMESPACE)
    session.apply(written(directory, manifest))
    return session


def written(directory: Path, *manifests: dict[str, Any]) -> Path:
    path = directory / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    return path


def scan(bed: Testbed, session: Session, phone: str) -> None:
    session.wait_phase("Authenticating")
    with bed.phone() as url:
        asyncio.run(Phone(url).scan(session.pairing_code(), phone))
    session.wait_ready()


def assert_restored(session: Session) -> None:
    """Delete the pod of a session that is Ready; it is Ready again without a link code."""
    pod, restorations = session.pod()["metadata"]["uid"], session.status["restorations"]
    with session.recorded_phases() as phases:
        session.kubectl("delete", "pod", session.status["podName"])
        session.wait(f"jsonpath={{.status.restorations}}={restorations + 1}")
        session.wait_ready()
    assert session.pod()["metadata"]["uid"] != pod
    assert "Authenticating" not in phases
    assert session.status["restored"] is True


def assert_assigned_ids(bed: Testbed, namespace: str, pod: str) -> None:
    """Assert that a pod runs with the IDs that the SCC sets."""
    output = bed.cluster.kubectl("-n", namespace, "exec", pod, "--", "cat", "/proc/1/status")
    process = dict(line.split(":\t", 1) for line in output.splitlines())
    assert process["Uid"].split() == [str(SCC["runAsUser"])] * 4
    assert process["Gid"].split() == [str(SCC["runAsGroup"])] * 4
    assert str(SCC["fsGroup"]) in process["Groups"].split()


# --- Pod Security ---------------------------------------------------------------------------------


def pod_specs(bed: Testbed, *values: str) -> dict[str, dict[str, Any]]:
    """Return the specs of the chart's pods by the name of their Deployment."""
    release = ("template", "wasession", str(CHART), "--namespace", SYSTEM)
    chosen = ",".join((GATEWAY, *values))
    output = bed.helm(*release, "--kube-version", KUBERNETES, "--set", chosen)
    specs = {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in yaml.safe_load_all(output)
        if document and document["kind"] == "Deployment"
    }
    assert specs.keys() == {"wasession-operator", "wasession-gateway"}
    return specs


def test_a_session_in_a_restricted_namespace(bed: Testbed, tmp_path: Path) -> None:
    session = create(bed, tmp_path, "restricted")
    scan(bed, session, "15557770011")
    assert_restored(session)


@pytest.mark.parametrize("values", [(), ("runAsUser=null",)])
def test_operator_and_gateway_are_restricted(
    bed: Testbed, tmp_path: Path, values: tuple[str, ...]
) -> None:
    for name, spec in pod_specs(bed, *values).items():
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
        dry_run = ("-n", NAMESPACE, "create", "--dry-run=server", "-f")
        own = spec | {"serviceAccountName": "default"}  # their accounts are not in this namespace
        bed.cluster.kubectl(*dry_run, str(written(tmp_path, manifest | {"spec": own})))
        root = own | {"securityContext": {}}
        with pytest.raises(subprocess.CalledProcessError) as refused:
            bed.cluster.kubectl(*dry_run, str(written(tmp_path, manifest | {"spec": root})))
        assert 'violates PodSecurity "restricted:latest"' in refused.value.stderr


# --- a company's authority ------------------------------------------------------------------------


@pytest.fixture
def authority(bed: Testbed, tmp_path: Path) -> CertificateAuthority:
    """Serve the stand-in with a certificate of this authority."""
    authority = CertificateAuthority()
    authority.server_context(tmp_path, STANDIN, "localhost")
    own = ("-n", NAMESPACE)
    pem = f"--from-file=tls.pem={tmp_path / STANDIN}.pem"
    bed.cluster.kubectl(*own, "create", "secret", "generic", "standin-tls", pem)
    bed.cluster.kubectl(*own, "apply", "-f", str(HERE / "standin_tls.yaml"))
    bed.cluster.kubectl(*own, "wait", "--for=condition=Ready", "pod/standin-tls", "--timeout=120s")
    return authority


def test_a_session_behind_a_companys_authority(
    bed: Testbed, authority: CertificateAuthority, tmp_path: Path
) -> None:
    """It waits for the ConfigMap with the authority's certificate, and then starts by itself."""
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}}
    spec = {
        "whatsappURL": f"https://{STANDIN}",
        "caBundle": {"configMapName": "company-ca"},
        "extraArgs": [],
        "egress": [{"to": [here], "ports": [{"port": 8443}]}],
    }
    with bed.session_class("e2e-company", **spec) as name:
        session = create(bed, tmp_path, "company", className=name)
        reason = "{.status.conditions[?(@.type=='Ready')].reason}"
        session.wait(f"jsonpath={reason}=CABundleInvalid")
        (tmp_path / "ca.crt").write_bytes(authority.pem)
        session.kubectl("create", "configmap", "company-ca", f"--from-file={tmp_path / 'ca.crt'}")
        session.wait_phase("Authenticating")
        trusting = ssl.create_default_context(cadata=authority.pem.decode())
        service = ("service/standin-tls", 443, "-n", NAMESPACE)
        with bed.cluster.port_forward(*service) as port:
            phone = Phone(f"https://localhost:{port}", trusting)
            asyncio.run(phone.scan(session.pairing_code(), "15557770012"))
        session.wait_ready()
        assert_restored(session)


# --- OpenShift ------------------------------------------------------------------------------------


@pytest.fixture
def assigned(bed: Testbed) -> Iterator[None]:
    """Install the chart without users, and set those of operator and gateway as the SCC does."""
    chosen = ("--set", f"{GATEWAY},replicas=1,runAsUser=null", "--wait=false")
    bed.install_operator("--values", str(DEMO / "gateway.yaml"), *chosen)
    patch = json.dumps({"spec": {"template": {"spec": {"securityContext": SCC}}}})
    for name in ("operator", "gateway"):
        bed.cluster.kubectl("-n", SYSTEM, "patch", "deployment", f"wasession-{name}", "-p", patch)
    try:
        bed.cluster.kubectl("-n", SYSTEM, "rollout", "status", "deployment", "--timeout=120s")
        yield
    finally:
        bed.install_operator()


@pytest.fixture
def volume(embedded_cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """Create a volume to which kubelet applies fsGroup, as it does to CSI; yield its class."""
    name, directory = "e2e-openshift", embedded_cluster.directory / "openshift"
    directory.mkdir()
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": name,
            "local": {"path": str(directory)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [linux]}]}},
        },
    }
    embedded_cluster.kubectl("apply", "-f", str(written(tmp_path, manifest)))
    yield name
    embedded_cluster.kubectl("delete", "pv", name, "--wait=false")  # its claim is still there


def test_nothing_sets_the_ids_that_the_platform_assigns(bed: Testbed) -> None:
    for name, spec in pod_specs(bed, "runAsUser=null").items():
        contexts = [spec["securityContext"], *(c["securityContext"] for c in spec["containers"])]
        assert not any(SCC.keys() & context.keys() for context in contexts), name


def test_a_session_with_the_ids_that_openshift_assigns(
    bed: Testbed, assigned: None, volume: str, tmp_path: Path
) -> None:
    for component in ("operator", "gateway"):
        assert_assigned_ids(bed, SYSTEM, pod_with_assigned_ids(bed, component))
    spec = {
        "podTemplate": {"spec": {"securityContext": SCC}},
        "template": {"storage": {"storageClassName": volume}},
    }
    with bed.session_class("e2e-openshift", **spec) as name:
        session = create(bed, tmp_path, "openshift", className=name)
        scan(bed, session, "15557770013")
        assert_restored(session)
        assert_assigned_ids(bed, NAMESPACE, session.status["podName"])


def pod_with_assigned_ids(bed: Testbed, component: str) -> str:
    """Return the name of the pod of operator or gateway that has the SCC's IDs."""
    label = f"app.kubernetes.io/component={component}"
    output = bed.cluster.kubectl("-n", SYSTEM, "get", "pods", "-l", label, "-o", "json")
    [name] = (
        pod["metadata"]["name"]
        for pod in json.loads(output)["items"]
        if SCC.items() <= pod["spec"]["securityContext"].items()
    )
    return str(name)
