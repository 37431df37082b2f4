"""Where a release goes, and that the workflows run what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import binaries
from support.documentation import make_targets
from support.testbed import ROOT

from release.publish import commands

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def test_images_of_all_architectures_are_pushed_as_one_and_the_chart_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(binaries, "tool", lambda name: name)
    names = [
        f"wasession-{target}-1.2.3-linux-{architecture}{suffix}"
        for target in ("operator", "session-pod", "gateway")
        for architecture in ("amd64", "arm64")
        for suffix in (".tar", ".cdx.json")
    ]
    files = [Path(name) for name in ("SHA256SUMS", "wasession-operator-1.2.3.tgz", *names)]
    found = [" ".join(command) for command in commands("1.2.3", "registry.example/w", files)]
    image = "registry.example/w/session-pod:1.2.3"
    assert [command for command in found if "session-pod" in command] == [
        f"buildah manifest create --amend {image}",
        f"buildah manifest add {image} oci-archive:wasession-session-pod-1.2.3-linux-amd64.tar",
        f"buildah manifest add {image} oci-archive:wasession-session-pod-1.2.3-linux-arm64.tar",
        f"buildah manifest push --all {image} docker://{image}",
        f"buildah manifest rm {image}",
    ]
    assert found[-1] == "helm push wasession-operator-1.2.3.tgz oci://registry.example/w/charts"
    assert len(found) == 16


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_that_there_are_and_actions_by_their_commit(path: Path) -> None:
    commands = "\n".join(step.get("run", "") for step in steps(path))
    asked = re.findall(r"\bmake ([a-z-]+)", commands)
    assert asked
    assert set(asked) <= make_targets()
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])
    for file in re.findall(r"go-version-file: ([\w./-]+)", path.read_text()):
        assert (ROOT / file).exists()
    # What somebody else may choose reaches a shell as a variable, never as text of the script.
    assert "${{" not in commands
