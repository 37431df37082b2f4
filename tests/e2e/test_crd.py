"""The API server rejects bad manifests with a message, and accepts good ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.testbed import Cluster
from wasession_api.crd import FILES

NAMESPACE = "e2e-crd"


@pytest.fixture(scope="module", autouse=True)
def namespace(kind_cluster: Cluster) -> Iterator[None]:
    if "whatsappsessions" not in kind_cluster.kubectl("get", "crds", "-o", "name"):
        kind_cluster.kubectl("create", "-f", str(FILES[0]))
    kind_cluster.kubectl(
        "wait", "--for=condition=Established", "crd/whatsappsessions.wasession.dev", "--timeout=30s"
    )
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
    ({"browser": {"extraArgs": ["lean"]}}, "extraArgs"),
    ({"browser": {"extraArgs": ["--user-data-dir=/tmp/x"]}}, "--user-data-dir"),
    ({"browser": {"extraArgs": ["--no-sandbox"]}}, "--no-sandbox"),
    ({"browser": {"resources": {"limits": {"memory": "lots"}}}}, "must have quantities"),
    (
        {"browser": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}},
        "memory",
    ),
    ({"browser": {"locale": "Deutsch"}}, "locale"),
    ({"browser": {"timezone": "../../etc/passwd"}}, "timezone"),
    ({"browser": {"shmSize": "-1"}}, "must be a quantity"),
    ({"whatsapp": {"url": "web.whatsapp.com"}}, "url"),
    ({"whatsapp": {"url": "https://web.whatsapp.com/path"}}, "url"),
    ({"whatsapp": {"takeover": "Sometimes"}}, "takeover"),
    ({"timeouts": {"initialization": "2 minutes"}}, "must be a duration such as 30s, 2m or 1h30m"),
    ({"timeouts": {"initialization": "1s"}}, "initialization"),
    ({"timeouts": {"shutdown": "1h"}}, "shutdown"),
    ({"reconnect": {"initialDelay": "10m", "maxDelay": "5m"}}, "initialDelay"),
    ({"updateStrategy": "Recreate"}, "updateStrategy"),
    ({"podTemplate": {"metadata": {"labels": {"wasession.dev/session": "x"}}}}, "wasession.dev/"),
    (
        {"podTemplate": {"metadata": {"annotations": {"wasession.dev/client-id": "x"}}}},
        "wasession.dev/",
    ),
    ({"podTemplate": {"spec": {"containers": []}}}, "unknown field"),
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
            "extraArgs": ["--lang-x=de"],
        }
    },
    {"browser": {"timezone": "America/Argentina/Buenos_Aires", "locale": "zh-Hant-TW"}},
    {"whatsapp": {"url": "http://standin.standin.svc:8080"}},
    {
        "timeouts": {"initialization": "1m30s"},
        "reconnect": {"initialDelay": "1s", "maxDelay": "1h"},
    },
    {
        "podTemplate": {
            "spec": {"tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}}}
        }
    },
]


@pytest.mark.parametrize("spec", GOOD, ids=[json.dumps(spec)[:60] for spec in GOOD])
def test_good_specs_are_taken(
    kind_cluster: Cluster, tmp_path: Path, spec: dict[str, Any] | None
) -> None:
    kind_cluster.kubectl(
        "-n", NAMESPACE, "apply", "--dry-run=server", "-f", manifest(tmp_path, spec)
    )


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
    spec = json.loads(kind_cluster.kubectl("-n", NAMESPACE, "get", existing, "-o", "json"))["spec"]
    assert spec["whatsapp"] == {
        "url": "https://web.whatsapp.com",
        "takeover": "Never",
        "presence": "Unavailable",
    }
    assert spec["timeouts"] == {"initialization": "2m", "shutdown": "30s", "logout": "30s"}
    assert spec["pairing"] == {"method": "QRCode", "maxRounds": 5}


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


@pytest.mark.parametrize(
    "field", ["", ".spec", ".spec.pairing", ".spec.storage.size", ".status", ".status.conditions"]
)
def test_every_field_is_explained(kind_cluster: Cluster, field: str) -> None:
    output = kind_cluster.kubectl("explain", f"whatsappsessions{field}")
    assert "DESCRIPTION:" in output
    assert "<empty>" not in output
