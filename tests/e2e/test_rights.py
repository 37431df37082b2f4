"""What the chart allows operator and gateway is what they need, as the audit log shows.

Runs after all other end-to-end tests (``support/distribution.py``).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from support.cluster import Cluster, audit, binaries
from support.testbed import CHART, SYSTEM


class Right(NamedTuple):
    """One verb on one resource, in any namespace."""

    account: str
    api_group: str
    resource: str
    verb: str


OPERATOR = f"system:serviceaccount:{SYSTEM}:wasession-operator"
GATEWAY = f"system:serviceaccount:{SYSTEM}:wasession-gateway"
SESSIONS = "wasession.dev"
APPLIED = "the API server checks it when an apply creates the object; the request is a patch"

# Granted, and not to be seen in the audit log of these tests.
UNUSED = {
    Right(OPERATOR, SESSIONS, "whatsappsessions/finalizers", "update"): (
        "the admission plugin OwnerReferencesPermissionEnforcement checks it, without a request"
    ),
    Right(OPERATOR, "", "secrets", "create"): APPLIED,
    Right(OPERATOR, "networking.k8s.io", "networkpolicies", "create"): APPLIED,
    Right(OPERATOR, "", "namespaces", "get"): (
        "needed when a watched namespace is deleted: integration/operator/test_namespaces.py"
    ),
    Right(OPERATOR, "", "nodes", "get"): "needed for a pod on a node that was just registered",
    Right(OPERATOR, SESSIONS, "whatsappsessions", "get"): (
        "needed when a session is not as it is cached: unit/operator/test_cluster_cache.py"
    ),
    Right(OPERATOR, SESSIONS, "whatsappsessionbackups", "get"): (
        "needed when the store has another of its name: unit/operator/test_backup_store_sync.py"
    ),
    Right(OPERATOR, SESSIONS, "whatsappsessionbackups", "delete"): (
        "needed when a schedule has made enough of them: integration/operator/test_backups.py"
    ),
    Right(OPERATOR, SESSIONS, "whatsappsessionbackups", "patch"): (
        "needed for the finalizer of Delete: integration/operator/test_backups.py"
    ),
    Right(GATEWAY, SESSIONS, "whatsappsessions", "get"): (
        "needed when another writer changes a session that is being deleted"
    ),
    Right(GATEWAY, SESSIONS, "whatsappsessions", "assign-owner"): (
        "an admission policy checks it, without a request"
    ),
}
# Requested without the right to, and provoked by a test.
ROLES_FIRST = "Helm deletes or narrows the roles before the replicas that had them have ended"
FORBIDDEN = {
    Right(OPERATOR, "coordination.k8s.io", "leases", "patch"): ROLES_FIRST,  # it expires instead
    Right(OPERATOR, "coordination.k8s.io", "leases", "delete"): ROLES_FIRST,
    Right(OPERATOR, "", "namespaces", "get"): ROLES_FIRST,
}


@pytest.fixture(scope="module")
def requests(request: pytest.FixtureRequest) -> list[audit.Request]:
    """Return the requests of operator and gateway; skip unless all other tests run before."""
    missing = _not_selected(request.session)
    if missing:
        pytest.skip(
            f"needs all end-to-end tests in one run; {len(missing)} are not: {missing[0]}, …"
        )
    cluster: Cluster = request.getfixturevalue("embedded_cluster")
    return [
        logged for logged in audit.requests(cluster.directory) if logged.user in (OPERATOR, GATEWAY)
    ]


def test_each_right_is_used(requests: list[audit.Request]) -> None:
    granted = _granted(_manifests())
    used = {_right(request) for request in requests if request.decision == "allow"}
    assert {right.account for right in granted} == {OPERATOR, GATEWAY}
    assert _listed(granted - used - UNUSED.keys()) == "", "granted and never used"
    assert _listed(UNUSED.keys() - granted) == "", "not granted any more"


def test_nothing_is_requested_without_the_right_to(requests: list[audit.Request]) -> None:
    forbidden = {_right(request) for request in requests if request.decision != "allow"}
    assert _listed(forbidden - FORBIDDEN.keys()) == ""


def _not_selected(session: pytest.Session) -> list[str]:
    """Return the end-to-end tests that are not part of this run."""
    selected = {
        (item.path.name, item.originalname)
        for item in session.items
        if isinstance(item, pytest.Function)
    }
    return [
        f"{path.name}::{name}"
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
        if (path.name, name) not in selected
    ]


def _manifests() -> list[dict[str, Any]]:
    """Return the chart's manifests, for all namespaces and for some only, with gateways."""
    command = [binaries.tool("helm"), "template", "wasession"]
    command += [str(CHART), "--namespace", SYSTEM, "--set", "gateway.enabled=true"]
    command += ["--set", "backups.snapshots.enabled=true"]
    command += ["--kube-version", binaries.kubernetes_version()]
    return [
        manifest
        for choice in (
            [],
            ["--set", "watchNamespaces={e2e-served},gateway.namespace=e2e-served"],
        )
        for manifest in yaml.safe_load_all(subprocess.check_output([*command, *choice], text=True))
        if manifest
    ]


def _granted(manifests: Iterable[dict[str, Any]]) -> set[Right]:
    """Return the rights that these manifests give to ServiceAccounts."""
    roles: dict[tuple[str, str], list[dict[str, Any]]] = {}
    bindings = []
    for manifest in manifests:
        if manifest["kind"] in ("Role", "ClusterRole"):
            key = manifest["kind"], manifest["metadata"]["name"]
            roles.setdefault(key, []).extend(manifest["rules"])
        elif manifest["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            bindings.append(manifest)
    return {
        Right(f"system:serviceaccount:{subject['namespace']}:{subject['name']}", group, kind, verb)
        for binding in bindings
        for subject in binding["subjects"]
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }


def _listed(rights: set[Right]) -> str:
    return "\n".join(sorted(" ".join(right) for right in rights))


def _right(request: audit.Request) -> Right:
    return Right(request.user, request.api_group, request.full_resource, request.verb)
