"""The README's tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client import REGISTRY
from wasession_gateway import events
from wasession_gateway import socketio_namespace as socket
from wasession_gateway.operations import AUDITED, EVENTS
from wasession_gateway.scopes import Scope

ROOT = Path(__file__).parents[3]
README = (ROOT / "gateway" / "README.md").read_text()
ROLE = ROOT / "charts" / "wasession-operator" / "templates" / "gateway" / "rbac.yaml"


def section(title: str) -> str:
    return re.split(r"\n##+ ", README.split(f"# {title}\n", 1)[1])[0]


def cells(title: str, column: int) -> list[str]:
    """Return a column of all tables of a section."""
    rows = [line.split("|")[1:-1] for line in section(title).splitlines() if line.startswith("| ")]
    return [row[column].strip() for row in rows]


def names(texts: list[str]) -> set[str]:
    return {name for text in texts for name in re.findall(r"`([^`]+)`", text)}


def test_scopes() -> None:
    assert names(cells("Scopes", 0)) == set(Scope)


def test_audited_actions() -> None:
    actions = {*AUDITED, socket.CREATE_SESSION, socket.JOIN_SESSIONS, socket.RECEIVE_CODE}
    assert actions <= names(cells("Audit log", 0))


def test_permissions() -> None:
    """Each verb of the Role has its reason."""
    documented, resource = set[tuple[str, str]](), ""
    for first, verbs in zip(cells("Permissions", 0), cells("Permissions", 1), strict=True):
        resource = first.strip("`") or resource
        documented |= {(resource, verb) for verb in names([verbs])}
    template = ROLE.read_text().split("rules:\n", 1)[1].split("---")[0]
    granted = {
        (resource, verb)
        for rule in yaml.safe_load(template)
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert documented == granted
    assert "secrets" not in {resource for resource, _ in granted}


def test_socket_io_events() -> None:
    documented = names(cells("Socket.IO", 0))
    assert documented >= {events.name(model) for model in EVENTS}


def test_metrics() -> None:
    documented = names([cell.partition("{")[0] + "`" for cell in cells("Metrics", 0)])
    collected = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in REGISTRY.collect()
        if metric.name.startswith("wasession_gateway_")
    }
    assert documented == collected
