"""What the chart renders for the operator."""

from __future__ import annotations

import subprocess

import pytest
from integration.operator.conftest import render


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("wasession", "wasession-operator"),
        ("operator", "operator-wasession-operator"),
        ("w", "w-wasession-operator"),
        ("staging", "staging-wasession-operator"),
        ("staging-wasession-operator", "staging-wasession-operator"),
    ],
)
def test_releases_do_not_share_a_name(release: str, name: str) -> None:
    [deployment] = render("templates/deployment.yaml", release=release)
    assert deployment["metadata"]["name"] == name


@pytest.mark.parametrize("interval", ["0s", "0h0m0s", "10"])
def test_a_resync_without_a_pause_is_refused(interval: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        render("templates/deployment.yaml", "--set", f"settings.cleanupInterval={interval}")


def test_no_right_to_delete_secrets() -> None:
    """Garbage collection deletes them, so that no fault of the operator can."""
    for options in ((), ("--set", "watchNamespaces={a,b}")):
        for manifest in render("templates/rbac.yaml", *options):
            for rule in manifest.get("rules", []):
                assert "secrets" not in rule["resources"] or "delete" not in rule["verbs"]


def test_what_may_be_done_outside_the_watched_namespaces() -> None:
    options = ("--set", "watchNamespaces={a,b}", "--set", "rbac.nodes=false")
    [cluster] = [
        manifest
        for manifest in render("templates/rbac.yaml", *options)
        if manifest["kind"] == "ClusterRole"
    ]
    rules = {rule["resources"][0]: rule for rule in cluster["rules"]}
    assert rules.keys() == {"whatsappsessions", "namespaces"}
    assert rules["namespaces"]["resourceNames"] == ["a", "b"]
    assert rules["namespaces"]["verbs"] == ["get"]
    kinds = {
        manifest["kind"]
        for manifest in render(
            "templates/rbac.yaml", *options, "--set", "rbac.deletedNamespaces=false"
        )
    }
    assert kinds == {"Role", "RoleBinding"}
