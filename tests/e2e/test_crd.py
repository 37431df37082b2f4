"""The API server rejects bad manifests with a message, and accepts good ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.testbed import Cluster, wait_established
from wasession_api.crd import KINDS, ROOT

NAMESPACE = "e2e-crd"


@pytest.fixture(scope="module", autouse=True)
def namespace(kind_cluster: Cluster) -> Iterator[None]:
    for kind in KINDS:
        if kind.name not in kind_cluster.kubectl("get", "crds", "-o", "name"):
            kind_cluster.kubectl("create", "-f", str(ROOT / "crds" / kind.file_name))
        wait_established(kind_cluster, kind.name)
    kind_cluster.kubectl("create", "namespace", NAMESPACE)
    yield
    kind_cluster.kubectl("delete", "namespace", NAMESPACE)


def manifest(directory: Path, spec: dict[str, Any] | None, name: str = "sales") -> str:
    content: dict[str, Any] = {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSession",
        "metadata": {"name": name},
    }
    if spec is not None:
        content["spec"] = {
            "suspend": True,
            **spec,
        }  # an operator that is installed starts no pod for it
    path = directory / "session.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def class_manifest(directory: Path, spec: dict[str, Any]) -> str:
    content = {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSessionClass",
        "metadata": {"name": "e2e-crd"},
        "spec": spec,
    }
    path = directory / "class.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def refused(cluster: Cluster, *arguments: str) -> str:
    """Return the message of the API server's rejection."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        cluster.kubectl("-n", NAMESPACE, *arguments)
    return str(error.value.stderr)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"clientId": "a b"}, "clientId"),
    ({"clientId": "x" * 65}, "clientId"),
    ({"owner": ""}, "owner"),
    ({"suspend": "yes"}, "must be of type boolean"),
    ({"unknown": 1}, "unknown field"),
    ({"pairing": {"method": "Telepathy"}}, 'supported values: "QRCode", "PairingCode"'),
    ({"pairing": {"method": "PairingCode"}}, "phoneNumber"),
    ({"pairing": {"phoneNumber": "15551234567"}}, "phoneNumber"),
    ({"pairing": {"method": "PairingCode", "phoneNumber": "+1 555"}}, "phoneNumber"),
    ({"pairing": {"maxRounds": 0}}, "should be greater than or equal to 1"),
    ({"pairing": {"maxRounds": 101}}, "should be less than or equal to 100"),
    ({"storage": {"size": "much"}}, "must be a quantity"),
    ({"storage": {"size": "0"}}, "size"),
    ({"storage": {"accessMode": "ReadOnlyMany"}}, "accessMode"),
    ({"storage": {"storageClassName": "Not A Name"}}, "must be a name"),
    ({"storage": {"retention": {"whenDeleted": "Maybe"}}}, 'supported values: "Retain", "Delete"'),
    ({"browser": {"extraArgs": ["--mute-audio"]}}, "unknown field"),
    ({"browser": {"image": "registry.example/a"}}, "unknown field"),
    ({"browser": {"proxySecretRef": {"name": "database"}}}, "must begin with wasession-proxy-"),
    ({"browser": {"resources": {"limits": {"memory": "lots"}}}}, "must have quantities"),
    (
        {"browser": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}},
        "memory",
    ),
    ({"browser": {"locale": "Deutsch"}}, "locale"),
    ({"browser": {"timezone": "../../etc/passwd"}}, "timezone"),
    ({"browser": {"shmSize": "-1"}}, "must be a quantity"),
    ({"whatsapp": {"url": "https://web.whatsapp.com"}}, "unknown field"),
    ({"whatsapp": {"takeover": "Sometimes"}}, "takeover"),
    ({"timeouts": {"initialization": "2 minutes"}}, "must be a duration such as 30s, 2m or 1h30m"),
    ({"timeouts": {"initialization": "1s"}}, "initialization"),
    ({"timeouts": {"shutdown": "1h"}}, "shutdown"),
    ({"reconnect": {"initialDelay": "10m", "maxDelay": "5m"}}, "initialDelay"),
    ({"updateStrategy": "Recreate"}, "updateStrategy"),
    ({"podTemplate": {"metadata": {"labels": {"team": "x"}}}}, "unknown field"),
]


@pytest.mark.parametrize(("spec", "message"), BAD, ids=[json.dumps(spec)[:60] for spec, _ in BAD])
def test_bad_specs_are_rejected_with_a_message(
    kind_cluster: Cluster, tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    output = refused(kind_cluster, "apply", "--dry-run=server", "-f", manifest(tmp_path, spec))
    assert message in output


GOOD: list[dict[str, Any] | None] = [
    None,
    {},
    {"clientId": "Sales_EU-1", "owner": "user-42"},
    {"pairing": {"method": "PairingCode", "phoneNumber": "15551234567"}},
    {"storage": {"size": "500Mi", "storageClassName": "fast", "accessMode": "ReadWriteOncePod"}},
    {
        "browser": {
            "resources": {"limits": {"cpu": 1, "memory": "2Gi"}},
            "proxySecretRef": {"name": "wasession-proxy-eu"},
        }
    },
    {"browser": {"timezone": "America/Argentina/Buenos_Aires", "locale": "zh-Hant-TW"}},
    {
        "timeouts": {"initialization": "1m30s"},
        "reconnect": {"initialDelay": "1s", "maxDelay": "1h"},
    },
]


@pytest.mark.parametrize("spec", GOOD, ids=[json.dumps(spec)[:60] for spec in GOOD])
def test_good_specs_are_taken(
    kind_cluster: Cluster, tmp_path: Path, spec: dict[str, Any] | None
) -> None:
    kind_cluster.kubectl(
        "-n", NAMESPACE, "apply", "--dry-run=server", "-f", manifest(tmp_path, spec)
    )


BAD_CLASSES: list[tuple[dict[str, Any], str]] = [
    ({"extraArgs": ["lean"]}, "must be one of the Chromium flags"),
    ({"extraArgs": ["--user-data-dir=/tmp/x"]}, "must be one of the Chromium flags"),
    ({"extraArgs": ["--no-sandbox"]}, "must be one of the Chromium flags"),
    ({"whatsappURL": "web.whatsapp.com"}, "must be an http or https origin"),
    ({"whatsappURL": "https://web.whatsapp.com/path"}, "must be an http or https origin"),
    ({"podTemplate": {"metadata": {"labels": {"wasession.dev/session": "x"}}}}, "wasession.dev/"),
    (
        {"podTemplate": {"metadata": {"annotations": {"wasession.dev/client-id": "x"}}}},
        "wasession.dev/",
    ),
    ({"podTemplate": {"spec": {"containers": []}}}, "unknown field"),
    ({"podTemplate": {"spec": {"tolerations": [{"operator": "Nope"}]}}}, "Unsupported value"),
    ({"podTemplate": {"spec": {"affinity": {"x": [1, 2]}}}}, "unknown field"),
    ({"overrides": ["image"]}, "Unsupported value"),
]


@pytest.mark.parametrize(
    ("spec", "message"), BAD_CLASSES, ids=[json.dumps(spec)[:60] for spec, _ in BAD_CLASSES]
)
def test_bad_classes_are_rejected_with_a_message(
    kind_cluster: Cluster, tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    path = class_manifest(tmp_path, spec)
    assert message in refused(kind_cluster, "apply", "--dry-run=server", "-f", path)


GOOD_CLASSES: list[dict[str, Any]] = [
    {},
    {"extraArgs": ["--mute-audio"], "whatsappURL": "http://standin.standin.svc:8080"},
    {
        "podTemplate": {
            "spec": {"tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}}}
        }
    },
]


@pytest.mark.parametrize("spec", GOOD_CLASSES, ids=[json.dumps(spec)[:60] for spec in GOOD_CLASSES])
def test_good_classes_are_taken(
    kind_cluster: Cluster, tmp_path: Path, spec: dict[str, Any]
) -> None:
    kind_cluster.kubectl("apply", "--dry-run=server", "-f", class_manifest(tmp_path, spec))


def test_examples_are_taken(kind_cluster: Cluster) -> None:
    examples = Path(__file__).parents[2] / "examples"
    assert list(examples.glob("*.yaml"))
    kind_cluster.kubectl("-n", NAMESPACE, "apply", "--dry-run=server", "-f", str(examples))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"clientId": "other"}, "clientId"),
    ({"storage": {"storageClassName": "other"}}, "storageClassName"),
    ({"storage": {"accessMode": "ReadWriteOncePod"}}, "accessMode"),
    ({"storage": {"size": "512Mi"}}, "shrink"),
]


@pytest.fixture(scope="module")
def existing(kind_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = manifest(tmp_path_factory.mktemp("existing"), {"storage": {"size": "1Gi"}}, "existing")
    kind_cluster.kubectl("-n", NAMESPACE, "apply", "-f", path)
    return "wasession/existing"


@pytest.mark.parametrize(
    ("change", "message"), CHANGES, ids=[json.dumps(change) for change, _ in CHANGES]
)
def test_what_belongs_to_the_login_cannot_change(
    kind_cluster: Cluster, existing: str, change: dict[str, Any], message: str
) -> None:
    patch = json.dumps({"spec": change})
    assert message in refused(
        kind_cluster, "patch", existing, "--type=merge", "--dry-run=server", "-p", patch
    )


def test_the_volume_may_grow(kind_cluster: Cluster, existing: str) -> None:
    patch = json.dumps({"spec": {"storage": {"size": "2Gi"}}})
    kind_cluster.kubectl(
        "-n", NAMESPACE, "patch", existing, "--type=merge", "--dry-run=server", "-p", patch
    )


def test_defaults_are_shown(kind_cluster: Cluster, existing: str) -> None:
    """But for those that the class may decide."""
    spec = json.loads(kind_cluster.kubectl("-n", NAMESPACE, "get", existing, "-o", "json"))["spec"]
    assert spec["pairing"] == {"method": "QRCode", "maxRounds": 5}
    assert spec["replicas"] == 1
    assert spec["storage"] == {"size": "1Gi"}
    assert spec.keys() & {"whatsapp", "browser", "timeouts", "updateStrategy"} == set()


@pytest.mark.parametrize("name", ["wasession", "wasessions", "was", "whatsappsessions"])
def test_short_names(kind_cluster: Cluster, existing: str, name: str) -> None:
    assert existing.partition("/")[2] in kind_cluster.kubectl("-n", NAMESPACE, "get", name)


def test_columns(kind_cluster: Cluster, existing: str) -> None:
    header = kind_cluster.kubectl("-n", NAMESPACE, "get", existing, "-o", "wide").splitlines()[0]
    columns = [
        "NAME",
        "PHASE",
        "VALID",
        "LAST CONNECTED",
        "ACCOUNT",
        "RESTORED",
        "AGE",
        "POD",
        "NODE",
        "REASON",
    ]
    positions = [header.index(column) for column in columns]
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", ["wasc", "whatsappsessionclasses"])
def test_classes(kind_cluster: Cluster, tmp_path: Path, name: str) -> None:
    kind_cluster.kubectl("apply", "-f", class_manifest(tmp_path, {"image": "registry.example/a"}))
    output = kind_cluster.kubectl("get", name, "-o", "wide")
    kind_cluster.kubectl("delete", name, "e2e-crd")
    assert "registry.example/a" in output
    columns = ["DEFAULT", "SESSIONS", "ROLLOUT", "UPDATED", "TOTAL", "IMAGE", "URL"]
    assert output.split("\n")[0].split() == ["NAME", *columns, "AGE", "MESSAGE"]


@pytest.mark.parametrize(
    "field",
    [
        "whatsappsessions",
        "whatsappsessions.spec",
        "whatsappsessions.spec.pairing",
        "whatsappsessions.spec.storage.size",
        "whatsappsessions.status",
        "whatsappsessions.status.conditions",
        "wasc",
        "wasc.spec",
        "wasc.spec.overrides",
        "wasc.spec.template.storage.size",
        "wasc.spec.podTemplate.spec.affinity.nodeAffinity",
        "wasc.status",
    ],
)
def test_every_field_is_explained(kind_cluster: Cluster, field: str) -> None:
    output = kind_cluster.kubectl("explain", field)
    assert "DESCRIPTION:" in output
    assert "<empty>" not in output
