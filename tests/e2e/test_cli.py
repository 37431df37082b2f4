"""``kubectl wasession`` as a plugin, in a terminal, with the rights of the roles edit and view."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.standin import Phone
from support.terminal import Terminal
from support.testbed import Session, Testbed, plugin_path

EXAMPLE = Path(__file__).parents[1] / "demo" / "session.yaml"
NAMESPACE = "e2e-cli"
ME, FRIEND = "15551234567", "15550001111"


@pytest.fixture(scope="module")
def session(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"] = {"name": "shop"}
    path = tmp_path_factory.mktemp("cli") / "shop.yaml"
    path.write_text(yaml.safe_dump(manifest))
    bed.cluster.kubectl("create", "namespace", NAMESPACE)
    session = bed.session("shop", NAMESPACE)
    session.apply(path)
    yield session
    bed.cluster.kubectl("delete", "namespace", NAMESPACE)


@pytest.fixture(scope="module")
def kubeconfig(
    bed: Testbed, session: Session, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Return a function that makes kubeconfigs with a ClusterRole in the session's namespace."""

    def make(role: str) -> str:
        session.kubectl("create", "serviceaccount", role)
        subject = f"--serviceaccount={NAMESPACE}:{role}"
        session.kubectl("create", "rolebinding", role, f"--clusterrole={role}", subject)
        config: dict[str, Any] = yaml.safe_load(bed.cluster.kubeconfig_path.read_text())
        config["users"] = [
            {"name": role, "user": {"token": session.kubectl("create", "token", role).strip()}}
        ]
        context = {"cluster": config["clusters"][0]["name"], "user": role, "namespace": NAMESPACE}
        config |= {"contexts": [{"name": role, "context": context}], "current-context": role}
        path = tmp_path_factory.mktemp("kubeconfig") / role
        path.write_text(yaml.safe_dump(config))
        return str(path)

    return make


@pytest.fixture(scope="module")
def editor(kubeconfig: Callable[[str], str]) -> dict[str, str]:
    """Return the environment of a user with the role edit."""
    return {"KUBECONFIG": kubeconfig("edit"), "PATH": plugin_path()}


def wasession(environment: dict[str, str], *arguments: str) -> str:
    """Return the output of ``kubectl wasession ...``; raises ``CalledProcessError``."""
    command = ["kubectl", "wasession", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def linked(bed: Testbed, session: Session, editor: dict[str, str]) -> Session:
    """Link the session with a phone that reads the QR from the terminal."""
    with bed.phone() as url, Terminal(["kubectl", "wasession", "qr", "shop"], editor) as terminal:
        code = terminal.wait_for(Terminal.qr, "the QR", patience=300)
        asyncio.run(Phone(url).scan(code, ME))
        assert terminal.wait(patience=120) == 0
        assert f"Session shop is linked to {ME}@c.us".encode() in terminal.output
        assert code.encode() not in terminal.output
    return session


def test_kubectl_finds_the_plugin(bed: Testbed, editor: dict[str, str]) -> None:
    assert "Exit codes:" in wasession(editor, "--help")
    plugins = subprocess.run(
        ["kubectl", "plugin", "list"],
        env=os.environ | editor,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "kubectl-wasession" in plugins.stdout


def test_list_has_the_columns_of_kubectl_get(linked: Session, editor: dict[str, str]) -> None:
    ours, theirs = wasession(editor, "list"), linked.kubectl("get", "wasessions")
    assert [line.split()[:3] for line in ours.splitlines()] == [
        line.split()[:3] for line in theirs.splitlines()
    ]
    assert ours.splitlines()[0] == theirs.splitlines()[0].rstrip()


def test_status_logs_and_a_message(
    bed: Testbed, linked: Session, editor: dict[str, str], tmp_path: Path
) -> None:
    status = wasession(editor, "status", "shop")
    for text in ("Ready for", f"{ME}@c.us", "PodReady", "What to do: Nothing, it is ready."):
        assert text in status
    assert '"message"' in wasession(editor, "logs", "shop", "--tail", "5")
    sent = json.loads(wasession(editor, "send", "shop", FRIEND, "from the terminal", "-o", "json"))
    document = tmp_path / "list.txt"
    document.write_text("a file from the terminal")
    wasession(editor, "send", "shop", FRIEND, "with a file", "--file", str(document))
    with bed.phone() as url:
        messages = asyncio.run(Phone(url).messages())
    assert ("from the terminal", sent["id"].split("_")[2]) in [
        (message.text, message.id) for message in messages
    ]
    assert any(
        message.media is not None and message.media.file_name == "list.txt" for message in messages
    )


def test_restart_suspend_and_resume_keep_the_login(linked: Session, editor: dict[str, str]) -> None:
    before = linked.status["podUID"]
    wasession(editor, "restart", "shop", "--wait", "--timeout", "4m")
    assert linked.status["podUID"] != before
    wasession(editor, "suspend", "shop", "--wait", "--timeout", "2m")
    assert "podName" not in linked.status
    with pytest.raises(subprocess.CalledProcessError) as refused:
        wasession(editor, "send", "shop", FRIEND, "too early")
    assert refused.value.returncode == 4
    wasession(editor, "resume", "shop", "--wait", "--timeout", "4m")
    assert linked.status["restored"] is True


def test_the_role_view_sees_and_does_nothing_else(
    linked: Session, kubeconfig: Callable[[str], str]
) -> None:
    viewer = {"KUBECONFIG": kubeconfig("view"), "PATH": plugin_path()}
    assert "shop" in wasession(viewer, "list")
    assert "What to do" in wasession(viewer, "status", "shop")
    for arguments in (
        ("send", "shop", FRIEND, "Hello"),
        ("suspend", "shop"),
        ("logout", "shop", "--yes"),
    ):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            wasession(viewer, *arguments)
        assert refused.value.returncode == 5, arguments


def test_logout_ends_the_login(linked: Session, editor: dict[str, str]) -> None:
    assert "logged out" in wasession(editor, "logout", "shop", "--yes")
    linked.wait("jsonpath={.status.sessionValid}=false")
