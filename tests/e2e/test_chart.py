"""The chart is upgraded and uninstalled as it was installed, and takes no session with it."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from testbed import CHART, SYSTEM, Testbed


def test_an_upgrade_changes_what_it_is_told(bed: Testbed) -> None:
    bed.helm("upgrade", "wasession", str(CHART), "--namespace", SYSTEM, "--reuse-values", "--set",
             "settings.restorationDelay=1s", "--wait", "--timeout", "120s")  # fmt: skip
    deployment = json.loads(bed.cluster.kubectl("-n", SYSTEM, "get", "deployments", "-o", "json"))["items"][0]
    environment = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["WASESSION_RESTORATION_DELAY"] == "1s"


def test_the_sessions_outlive_an_uninstall(bed: Testbed) -> None:
    bed.helm("uninstall", "wasession", "--namespace", SYSTEM, "--wait")
    assert bed.cluster.kubectl("-n", SYSTEM, "get", "deployments", "-o", "name") == ""
    assert "whatsappsessions" in bed.cluster.kubectl("get", "crds", "-o", "name")
    bed.install_operator()


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["watchNamespaces={a,b}"],
        ["rbac.create=false", "serviceAccount.create=false", "serviceAccount.name=mine"],
        ["metrics.service.enabled=true"],
        ["crds.enabled=false"],
    ],
)
def test_every_choice_renders(bed: Testbed, values: list[str]) -> None:
    arguments = [argument for value in values for argument in ("--set", value)]
    rendered = list(yaml.safe_load_all(bed.helm("template", "x", str(CHART), "--kube-version", "1.34.0", *arguments)))
    kinds = [document["kind"] for document in rendered if document]
    assert kinds.count("Deployment") == 1
    assert ("CustomResourceDefinition" in kinds) == ("crds.enabled=false" not in values)
    assert ("Role" in kinds) == ("watchNamespaces={a,b}" in values)


def test_an_unknown_value_is_refused(bed: Testbed) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        bed.helm("template", "x", str(CHART), "--kube-version", "1.34.0", "--set", "imagee.tag=x")
