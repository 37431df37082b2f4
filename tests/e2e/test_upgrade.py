"""An earlier version, with a linked session, is upgraded to this one, and rolled back.

``make upgrade-drill FROM=v1.2.3`` runs it: the earlier version's images are built from git, which
takes minutes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import images
from support.cluster.waiting import wait_for
from support.testbed import ROOT, SYSTEM, Session, Testbed
from wasession_api.crd import KINDS

FROM = os.environ.get("FROM", "")
NAMESPACE, ME = "e2e-upgrade", "15557770077"
TARGETS = ("operator", "session-pod")

pytestmark = pytest.mark.skipif(not FROM, reason="make upgrade-drill FROM=v1.2.3")


def image(target: str, tag: str) -> str:
    return f"localhost/wasession/{target}:{tag}"


@pytest.fixture(scope="module")
def earlier(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Check the earlier version out and install it, as if nothing had been there before."""
    folder = tmp_path_factory.mktemp("earlier")
    git = ["git", "-C", str(ROOT), "archive", FROM]
    archive = subprocess.run(git, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    subprocess.run(
        [sys.executable, "-m", "support.cluster.images", *TARGETS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "tests")},
        check=True,
    )
    for target in TARGETS:
        bed.cluster.load_docker_image(images.tag(target, image(target, "earlier")))
        images.build(target)  # the name is again that of this version
    bed.helm("uninstall", "wasession", "--namespace", SYSTEM, "--wait", "--no-hooks")
    for kind in KINDS:
        bed.cluster.kubectl("delete", "crd", kind.name)
    install(bed, folder)
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    yield folder
    bed.install_operator()
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)


def install(bed: Testbed, checkout: Path) -> None:
    """Install the earlier version with its own chart."""
    values = {"image": "operator", "sessionImage": "session-pod"}
    settings = [
        setting
        for name, target in values.items()
        for part, value in (("repository", image(target, "")[:-1]), ("tag", "earlier"))
        for setting in ("--set", f"{name}.{part}={value}")
    ]
    bed.helm(
        *("install", "wasession", str(checkout / "charts" / "wasession-operator")),
        *("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "180s"),
        *("--values", str(checkout / "tests/support/standin/values.yaml")),
        *settings,
    )


def replace_pod(session: Session, tag: str) -> None:
    """Delete the session's pod; return when one with this tag has brought the session back."""
    pod = session.pod()["metadata"]
    session.kubectl("delete", "pod", pod["name"], "--wait=false", "--ignore-not-found")

    def is_replaced() -> bool:
        found = session.pod()
        [container] = found["spec"]["containers"]
        is_new = found["metadata"]["uid"] not in ("", pod["uid"])
        return is_new and container["image"].endswith(f":{tag}")

    wait_for(f"a pod of {session.name} with the image {tag}", is_replaced, 120)
    session.wait_ready()
    assert session.status["restored"] is True


def test_a_login_outlives_an_upgrade_and_a_rollback(bed: Testbed, earlier: Path) -> None:
    session = bed.create_session("upgraded", NAMESPACE)
    bed.link(session, ME)
    assert bed.arrives(session, "before the upgrade")
    with session.recorded_phases() as phases:
        bed.install_operator()
        replace_pod(session, "dev")
        assert bed.arrives(session, "after the upgrade")
        bed.helm("rollback", "wasession", "--namespace", SYSTEM, "--wait", "--timeout", "180s")
        replace_pod(session, "earlier")
        assert bed.arrives(session, "after the rollback")
    assert "Authenticating" not in phases
    session.kubectl("delete", "wasession", session.name, "--timeout=120s")
