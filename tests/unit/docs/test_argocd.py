"""Argo CD's health checks, run by a Lua as Argo CD does: without its standard library of files."""

from __future__ import annotations

from typing import Any

import lupa
import pytest
import yaml
from support.testbed import ROOT
from wasession_api.v1alpha1 import BackupPhase, ConditionType, RolloutPhase

CONFIG = yaml.safe_load((ROOT / "examples/argocd/argocd-cm.yaml").read_text())
CHECKS: dict[str, str] = CONFIG["data"]
ROLLOUTS = {
    RolloutPhase.CANARY: "Progressing",
    RolloutPhase.SOAKING: "Progressing",
    RolloutPhase.PROGRESSING: "Progressing",
    RolloutPhase.ROLLING_BACK: "Progressing",
    RolloutPhase.WAITING_FOR_WINDOW: "Suspended",
    RolloutPhase.PAUSED: "Suspended",
    RolloutPhase.HALTED: "Degraded",
    RolloutPhase.COMPLETE: "Healthy",
}
BACKUPS = {
    BackupPhase.PENDING: "Progressing",
    BackupPhase.RUNNING: "Progressing",
    BackupPhase.COMPLETED: "Healthy",
    BackupPhase.FAILED: "Degraded",
}


def health(kind: str, status: Any, generation: int = 1) -> tuple[str, str]:
    """Return what Argo CD would show of an object: its health, and why."""
    lua = lupa.LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    obj = {"metadata": {"generation": generation}}
    if status is not None:
        obj["status"] = status
    lua.globals().obj = lua.table_from(obj, recursive=True)
    for name in ("io", "os", "require", "python"):
        lua.globals()[name] = None
    found = lua.execute(CHECKS[f"resource.customizations.health.wasession.dev_{kind}"])
    return found["status"], found["message"]


def session(phase: str, *true: ConditionType) -> dict[str, Any]:
    """Return the status of a session of which these conditions are True, and Ready is there."""
    conditions = [
        {"type": kind, "status": "True", "reason": f"{kind}Reason", "message": ""} for kind in true
    ]
    if ConditionType.READY not in true:
        not_ready = {"status": "False", "reason": "Because", "message": "of something"}
        conditions.append({"type": ConditionType.READY, **not_ready})
    return {"phase": phase, "observedGeneration": 1, "conditions": conditions}


def test_each_kind_has_a_check_and_each_phase_a_row() -> None:
    assert len(CHECKS) == 3
    assert set(ROLLOUTS) == set(RolloutPhase)
    assert set(BACKUPS) == set(BackupPhase)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (session("Starting", ConditionType.RECONCILING), ("Progressing", "ReconcilingReason")),
        (session("Ready", ConditionType.READY), ("Healthy", "ReadyReason")),
        (
            session("Ready", ConditionType.READY, ConditionType.DEGRADED),
            ("Degraded", "DegradedReason"),
        ),
        (session("Authenticating"), ("Suspended", "Because: of something")),
        (session("Hibernated"), ("Suspended", "Because: of something")),
        (
            session("LoggedOut", ConditionType.STALLED, ConditionType.DEGRADED),
            ("Degraded", "StalledReason"),
        ),
        (
            session("Restoring", ConditionType.RECONCILING, ConditionType.DEGRADED),
            ("Degraded", "DegradedReason"),
        ),
        (session("Dreaming", ConditionType.READY), ("Healthy", "ReadyReason")),
        ({"phase": "Starting", "observedGeneration": 1}, ("Suspended", "Starting")),
    ],
)
def test_a_session(status: dict[str, Any], expected: tuple[str, str]) -> None:
    assert health("WhatsAppSession", status) == expected


@pytest.mark.parametrize("status", [None, {}, session("Ready", ConditionType.READY)])
def test_an_operator_that_has_not_seen_the_session_yet(status: Any) -> None:
    assert health("WhatsAppSession", status, generation=2)[0] == "Progressing"


@pytest.mark.parametrize("phase", RolloutPhase)
def test_classes(phase: RolloutPhase) -> None:
    done = phase is RolloutPhase.COMPLETE
    condition = {"type": "RolledOut", "status": str(done), "reason": phase, "message": "so"}
    assert health("WhatsAppSessionClass", {"conditions": [condition]})[0] == ROLLOUTS[phase]


def test_a_class_that_two_operators_serve() -> None:
    condition = {"type": "OperatorConflict", "status": "True", "reason": "SeveralOperators"}
    status = {"conditions": [{**condition, "message": "uninstall one"}]}
    assert health("WhatsAppSessionClass", status) == ("Degraded", "uninstall one")
    assert health("WhatsAppSessionClass", None) == ("Healthy", "")


@pytest.mark.parametrize("phase", BackupPhase)
def test_backups(phase: BackupPhase) -> None:
    assert health("WhatsAppSessionBackup", {"phase": phase})[0] == BACKUPS[phase]
    assert health("WhatsAppSessionBackup", None)[0] == "Progressing"
