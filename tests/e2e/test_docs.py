"""The quickstart of the documentation works on a cluster, command by command.

Where a person looks until something has happened, the test waits for it; the phone is the
stand-in's. The chart is installed already, so its installation and removal are left out: they are
in ``test_chart.py``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documentation import blocks
from support.standin import Phone
from support.terminal import Terminal
from support.testbed import ROOT, SYSTEM, Testbed, plugin_path

NAME, ME = "sales-eu", "15557770042"
NAMESPACE = "sales"


def commands(page: str, heading: str) -> str:
    """Return the commands below a heading of a page."""
    found = [
        block.commands
        for block in blocks("sh", "console")
        if block.page == f"docs/{page}.md" and block.heading.startswith(heading)
    ]
    assert found, f"docs/{page}.md has no commands below {heading}"
    return "\n".join(found)


@pytest.fixture
def reader(bed: Testbed, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the reader's environment; it has a copy of the kubeconfig, which a step changes."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(bed.cluster.kubeconfig_path.read_bytes())
    yield {"KUBECONFIG": str(kubeconfig), "PATH": plugin_path()}
    bed.cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")


def shell(commands: str, environment: dict[str, str]) -> str:
    """Run commands in bash, in the repository; return what they print."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


def link(bed: Testbed, environment: dict[str, str]) -> None:
    """Do step 3: scan what the terminal shows."""
    command = commands("quickstart", "3.").split()
    with bed.phone() as url, Terminal(command, environment) as terminal:
        code = terminal.wait_for(Terminal.qr, "the QR", patience=300)
        asyncio.run(Phone(url).scan(code, ME))
        assert terminal.wait(patience=120) == 0


def test_the_quickstart(bed: Testbed, reader: dict[str, str]) -> None:
    until_code = (
        f"kubectl wait wasession/{NAME} --for=jsonpath='{{.status.phase}}'=Authenticating "
        "--timeout=3m"
    )
    create = commands("quickstart", "2.")
    assert "kubectl get wasessions -w" in create
    shell(create.replace("kubectl get wasessions -w", until_code), reader)
    link(bed, reader)
    sent = shell(commands("quickstart", "4."), reader)
    assert sent.startswith("true_15550001111@c.us_")
    broken = shell(commands("quickstart", "5."), reader)
    assert "true" + "true_15550001111@c.us_" in broken.replace("\n", "")
    pods = ("pods", "--all", "--for=condition=Ready", "--timeout=120s")
    bed.cluster.kubectl("-n", SYSTEM, "wait", *pods)
    shell(commands("install", "Check it"), reader)
    shell(commands("high-availability", "See it"), reader)
    shell(commands("sessions", "See what it does"), reader)
    clean_up = commands("quickstart", "6.").splitlines()
    assert clean_up[-1].startswith("helm uninstall")
    shell("\n".join(clean_up[:-1]), reader)
    left = shell(f"kubectl -n {NAMESPACE} get wasessions,pvc -o name", reader)
    assert left == ""
