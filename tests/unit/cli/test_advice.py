"""The advice of ``kubectl wasession status``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from wasession_api.v1alpha1 import BackupReason, BackupStatus, Condition, Phase, Reason, Status
from wasession_cli import advice

DOCS = Path(__file__).parents[3] / "docs"
STATUS, BACKUP = DOCS / "status.md", DOCS / "backup.md"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def make_status(phase: Phase, *conditions: tuple[str, str, str]) -> Status:
    return Status(
        phase=phase,
        conditions=[
            Condition(type=kind, status=truth, reason=reason, last_transition_time=NOW)
            for kind, truth, reason in conditions
        ],
        pod_name="wasession-sales",
        pvc_name="wasession-sales",
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (make_status(Phase.READY, ("Ready", "True", "Connected")), "kubectl wasession send sales"),
        (
            make_status(Phase.AUTHENTICATING, ("Ready", "False", "WaitingForScan")),
            "kubectl wasession qr sales",
        ),
        (
            make_status(Phase.LOGGED_OUT, ("Ready", "False", "LoggedOutByPhone")),
            "kubectl wasession qr sales",
        ),
        (
            make_status(Phase.FAILED, ("Degraded", "True", "PairingExpired")),
            "kubectl wasession qr sales",
        ),
        (
            make_status(Phase.FAILED, ("Degraded", "True", "SomethingNew")),
            "kubectl wasession restart sales",
        ),
        (
            make_status(Phase.PASSKEY_REQUIRED, ("Ready", "False", "PasskeyRequired")),
            "Confirm the passkey",
        ),
        (
            make_status(Phase.CONFLICT, ("Ready", "False", "OpenedElsewhere")),
            "spec.whatsapp.takeover",
        ),
        (
            make_status(Phase.CONFLICT, ("Degraded", "True", "LoginInUseElsewhere")),
            "kubectl wasession restart sales",
        ),
        (
            make_status(Phase.READY, ("Progressing", "False", "UpdatePending")),
            "kubectl wasession restart sales",
        ),
        (make_status(Phase.STARTING, ("Ready", "False", "PodNotReady")), "No action needed"),
        (
            make_status(Phase.STARTING, ("Degraded", "True", "PodNotReady")),
            "kubectl describe pod wasession-sales",
        ),
        (
            make_status(Phase.SUSPENDED, ("Ready", "False", "Suspended")),
            "kubectl wasession resume sales",
        ),
        (
            make_status(Phase.SUSPENDED, ("Degraded", "True", "MemoryLow")),
            "kubectl wasession resume sales",
        ),
        (
            make_status(
                Phase.READY, ("Ready", "True", "Connected"), ("Degraded", "True", "PhoneOffline")
            ),
            "14 days",
        ),
        (
            make_status(
                Phase.READY, ("Ready", "True", "Connected"), ("Degraded", "False", "AsExpected")
            ),
            "send sales",
        ),
        (
            make_status(Phase.PENDING, ("Degraded", "True", "Unschedulable")),
            "kubectl describe pod wasession-sales",
        ),
        (
            make_status(Phase.PENDING, ("Degraded", "True", "VolumePending")),
            "kubectl describe pvc wasession-sales",
        ),
        (make_status(Phase.STARTING, ("Ready", "False", "BrowserStarting")), "No action needed"),
        (make_status(Phase.TERMINATING, ("Ready", "False", "Terminating")), "being deleted"),
        (Status(), "No action needed"),
    ],
)
def test_next_step(status: Status, expected: str) -> None:
    assert expected in advice.next_step("sales", status)


def test_advice_is_about_known_reasons_and_has_no_placeholder_left() -> None:
    for reason in advice.BY_REASON:
        assert reason in set(Reason)
        assert "{" not in advice.next_step(
            "sales", make_status(Phase.FAILED, ("Degraded", "True", reason))
        )


def test_what_to_do_about_a_backup() -> None:
    status = BackupStatus(reason=BackupReason.NO_LOGIN)
    assert "kubectl wasession status sales" in advice.next_backup_step("sales", status)
    assert advice.next_backup_step("sales", BackupStatus()) == advice.WAIT
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", BACKUP.read_text(), re.MULTILINE)
    wanted = {reason for reason, step in rows if not step.startswith("nothing")}
    assert wanted & set(BackupReason) == set(advice.BY_BACKUP_REASON)
    assert {reason for reason, _ in rows} >= set(BackupReason)


def test_there_is_advice_for_all_that_the_docs_say_needs_attention() -> None:
    rows = re.findall(r"^\| `(\w+)` \* \| .*? \| (.*) \|$", STATUS.read_text(), re.MULTILINE)
    assert len(rows) > 40
    wanted = {reason for reason, step in rows if step != "nothing"}
    assert wanted - set(advice.BY_REASON) == set()
