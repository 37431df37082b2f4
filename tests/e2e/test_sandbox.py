"""A session under the project's seccomp profile has Chromium's sandbox, without any privilege."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.cluster import Cluster
from support.standin import Phone
from support.testbed import Session, Testbed

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "demo" / "session.yaml"
NAMESPACE = "e2e-sandbox"
PROFILE = "wasession/session-pod.json"


@pytest.fixture
def sandboxed(bed: Testbed, embedded_cluster: Cluster, tmp_path: Path) -> Iterator[Session]:
    """Create a session whose profile is on every node, where kubelet looks for it."""
    for node in embedded_cluster.nodes:
        target = node.disk / "kubelet" / "seccomp" / PROFILE
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "session-pod" / "seccomp.json", target)
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"] = {"name": "sandboxed"}
    profile = {"type": "Localhost", "localhostProfile": PROFILE}
    template = {"spec": {"securityContext": {"seccompProfile": profile}}}
    with bed.session_class("e2e-sandboxed", podTemplate=template) as name:
        manifest["spec"]["className"] = name
        (tmp_path / "session.yaml").write_text(yaml.safe_dump(manifest))
        session = bed.session("sandboxed", NAMESPACE)
        session.apply(tmp_path / "session.yaml")
        yield session
        bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def test_a_session_under_the_seccomp_profile_is_ready_and_sandboxed(
    bed: Testbed, sandboxed: Session
) -> None:
    sandboxed.wait_phase("Authenticating")
    with bed.phone() as url:
        asyncio.run(Phone(url).scan(sandboxed.pairing_code(), "15557770001"))
    sandboxed.wait_ready()
    assert sandboxed.call("GET", "/v1/state")["sandboxed"] is True
    script = "cat /proc/1/status; touch /somewhere 2>&1 || true"
    output = sandboxed.kubectl("exec", sandboxed.status["podName"], "--", "sh", "-c", script)
    assert "Read-only file system" in output
    status = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["10001"] * 4
    assert status["CapEff"] == status["CapBnd"] == "0000000000000000"
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "a filter is active"
