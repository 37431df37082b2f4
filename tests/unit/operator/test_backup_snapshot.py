"""What to do next with a backup by VolumeSnapshot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from unit.operator.backups import SOURCE, UID, backup, facts, running_report, source_session
from unit.operator.situations import NOW
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import BackupPhase, BackupReason, BackupStatus
from wasession_operator.backups.plan import (
    DEADLINE,
    ERROR_PATIENCE,
    CreateSnapshot,
    Decision,
    Facts,
    LookAtSnapshot,
    Observed,
    Problem,
    Progress,
    plan,
)
from wasession_operator.backups.snapshot import Snapshot, make_snapshot, parse_snapshot
from wasession_operator.plan.facts import Backoff

METHOD = {"method": "VolumeSnapshot"}
NAME, CLAIM = f"wasession-{UID}", "wasession-sales"
CREATE = CreateSnapshot(NAME, CLAIM, "fast")
BEGUN = BackupStatus(
    phase=BackupPhase.RUNNING,
    reason=BackupReason.TAKING_SNAPSHOT,
    volume_snapshot_name=NAME,
    attempts=1,
    started_at=NOW,
    source=SOURCE,
)
MINUTE = timedelta(minutes=1)


def session(**changes: Any) -> Any:
    fresh = {"claim": CLAIM, "has_login": True, "snapshot_class": "fast", "recipients": ()}
    return source_session(**{**fresh, **changes})


def situation(**changes: Any) -> Facts:
    return facts(**{"session": session(), "has_store": False, "progress": Progress(), **changes})


def seen(
    snapshot: Snapshot | None, *, was_created: bool = True, at: timedelta = MINUTE
) -> Progress:
    return Progress(observed=Observed(NOW + at, snapshot), was_created=was_created)


def after(snapshot: Snapshot | None, took: timedelta = MINUTE, **changes: Any) -> Decision:
    """Return what follows once a snapshot looks like this, so long after the begin."""
    given = {"progress": seen(snapshot, at=took), **changes}
    return plan(backup(BEGUN, spec=METHOD), situation(now=NOW + took, **given))


def reached(decision: Decision) -> tuple[BackupPhase | None, BackupReason | None]:
    return decision.status.phase, decision.status.reason


def test_it_is_written_down_before_it_is_created() -> None:
    assert plan(backup(spec=METHOD), situation()) == Decision(BEGUN, CREATE)


def test_a_session_need_not_run() -> None:
    stopped = session(report=None, is_stopped=True)
    assert plan(backup(spec=METHOD), situation(session=stopped)).action == CREATE


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (None, BackupReason.SESSION_NOT_FOUND),
        (session(recipients=None), BackupReason.CLASS_NOT_FOUND),
        (session(is_terminating=True), BackupReason.SESSION_NOT_RUNNING),
        (session(report=None, has_login=False), BackupReason.NO_LOGIN),
        (session(report=running_report(session_valid=False)), BackupReason.NO_LOGIN),
        (session(source=SOURCE.model_copy(update={"login_id": ""})), BackupReason.NO_LOGIN),
        (session(claim=None), BackupReason.VOLUME_NOT_BOUND),
    ],
)
def test_it_waits_and_says_what_for(unfit: Any, reason: BackupReason) -> None:
    decision = plan(backup(spec=METHOD), situation(session=unfit))
    assert reached(decision) == (BackupPhase.PENDING, reason)
    assert decision.action is None
    assert plan(backup(decision.status, spec=METHOD), situation()).action == CREATE


def test_a_replica_that_knows_of_nothing_looks_first() -> None:
    begun = backup(BEGUN, spec=METHOD)
    assert plan(begun, situation()) == Decision(BEGUN, LookAtSnapshot(NAME))
    nothing = seen(None, was_created=False)
    assert plan(begun, situation(progress=nothing)) == Decision(BEGUN, CREATE)
    for gone in (None, session(claim=None)):
        decision = plan(begun, situation(progress=nothing, session=gone))
        assert reached(decision) == (BackupPhase.FAILED, BackupReason.SESSION_NOT_FOUND)


@pytest.mark.parametrize("taken_at", [NOW + MINUTE, None])
def test_it_is_completed_once_it_is_ready(taken_at: Any) -> None:
    ready = Snapshot(CLAIM, is_ready=True, taken_at=taken_at, size=2**30)
    for present in (session(), None):  # nothing of the session is needed any more
        status = after(ready, session=present).status
        assert (status.phase, status.source) == (BackupPhase.COMPLETED, SOURCE)
        assert (status.taken_at, status.size) == (taken_at or NOW, 2**30)


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (None, BackupReason.SNAPSHOT_MISSING),
        (Snapshot(CLAIM, is_ready=True, is_terminating=True), BackupReason.SNAPSHOT_MISSING),
        (Snapshot("wasession-other", is_ready=True), BackupReason.SNAPSHOT_FAILED),
        (Snapshot(None, is_ready=True), BackupReason.SNAPSHOT_FAILED),
        (
            Snapshot(CLAIM, error="cannot find default snapshot class"),
            BackupReason.SNAPSHOTS_NOT_SUPPORTED,
        ),
    ],
)
def test_what_is_no_snapshot_of_the_volume_fails(
    snapshot: Snapshot | None, reason: BackupReason
) -> None:
    assert reached(after(snapshot)) == (BackupPhase.FAILED, reason)


def test_a_login_that_ends_meanwhile_is_not_backed_up() -> None:
    ended = session(source=SOURCE.model_copy(update={"login_id": ""}))
    decision = after(Snapshot(CLAIM, is_ready=True), session=ended)
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.NO_LOGIN)


def test_an_error_has_its_time_to_pass() -> None:
    failing = Snapshot(CLAIM, error="rpc error: " + "x" * 2000)
    decision = after(failing, ERROR_PATIENCE - timedelta(seconds=1))
    assert reached(decision) == (BackupPhase.RUNNING, BackupReason.TAKING_SNAPSHOT)
    assert "rpc error" in decision.status.message
    failed = after(failing, ERROR_PATIENCE)
    assert reached(failed) == (BackupPhase.FAILED, BackupReason.SNAPSHOT_FAILED)
    for status in (decision.status, failed.status):
        assert BackupStatus.model_validate(status.dump()) == status, "the API server accepts it"


def test_one_that_is_never_ready_fails() -> None:
    decision = after(Snapshot(CLAIM), DEADLINE)
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.DEADLINE_EXCEEDED)


@pytest.mark.parametrize(("took", "wait"), [(1, 1), (40, 10), (600, 30)])
def test_how_often_it_is_looked_at(took: int, wait: int) -> None:
    decision = after(Snapshot(CLAIM), timedelta(seconds=took))
    assert decision == Decision(BEGUN, requeue_after=timedelta(seconds=wait))
    seconds = timedelta(seconds=took)
    progress = seen(Snapshot(CLAIM), at=seconds)
    later = NOW + seconds + timedelta(seconds=2 * wait)
    decision = plan(backup(BEGUN, spec=METHOD), situation(progress=progress, now=later))
    assert decision.action == LookAtSnapshot(NAME)


def test_what_the_api_server_rejects_fails() -> None:
    rejected = Progress(problem=Problem(BackupReason.SNAPSHOT_FAILED, "It is not valid."))
    decision = plan(backup(BEGUN, spec=METHOD), situation(progress=rejected))
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.SNAPSHOT_FAILED)


def test_a_right_that_is_missing_may_be_granted_later() -> None:
    problem = Problem(BackupReason.SNAPSHOTS_FORBIDDEN, "Forbidden.")
    forbidden = Progress(problem=problem, retry=Backoff(1, NOW + MINUTE))
    waits = plan(backup(BEGUN, spec=METHOD), situation(progress=forbidden))
    assert reached(waits) == (BackupPhase.PENDING, BackupReason.SNAPSHOTS_FORBIDDEN)
    assert (waits.action, waits.requeue_after) == (None, MINUTE)

    pending = backup(waits.status, spec=METHOD)
    still = plan(pending, situation(progress=forbidden))
    assert (still.status, still.action, still.requeue_after) == (waits.status, None, MINUTE)
    later = plan(pending, situation(progress=forbidden, now=NOW + DEADLINE))
    assert (later.status, later.action) == (waits.status, CREATE), "its status does not flicker"
    for gone in (seen(None), Progress()):
        again = plan(pending, situation(progress=gone, now=NOW + DEADLINE))
        assert reached(again) == (BackupPhase.RUNNING, BackupReason.TAKING_SNAPSHOT)
        assert again.status.started_at == NOW + DEADLINE, "it has its time from now on"
    rejected = Progress(problem=Problem(BackupReason.SNAPSHOT_FAILED, "It is invalid."))
    failed = plan(pending, situation(progress=rejected))
    assert reached(failed) == (BackupPhase.FAILED, BackupReason.SNAPSHOT_FAILED)


def test_only_one_of_delete_goes_with_its_backup() -> None:
    retained = make_snapshot(backup(spec=METHOD), NAME, CLAIM, None)
    assert "ownerReferences" not in retained["metadata"]
    assert retained["spec"] == {"source": {"persistentVolumeClaimName": CLAIM}}
    deleted = make_snapshot(
        backup(spec={**METHOD, "deletion_policy": "Delete"}), NAME, CLAIM, "fast"
    )
    assert [owner["uid"] for owner in deleted["metadata"]["ownerReferences"]] == [UID]
    assert deleted["spec"]["volumeSnapshotClassName"] == "fast"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, Snapshot(CLAIM)),
        ({"readyToUse": False, "error": {}}, Snapshot(CLAIM)),
        ({"error": {"time": "x"}}, Snapshot(CLAIM, error="the driver does not say why")),
        ({"restoreSize": "3Gi"}, Snapshot(CLAIM, size=3 * 2**30)),
        ({"restoreSize": 1024}, Snapshot(CLAIM, size=1024)),
        ({"restoreSize": "much", "creationTime": "later"}, Snapshot(CLAIM)),
        ({"restoreSize": None, "creationTime": None, "readyToUse": True},
         Snapshot(CLAIM, is_ready=True)),
    ],
)  # fmt: skip
def test_what_counts_of_a_snapshot(status: Manifest, expected: Snapshot) -> None:
    spec = {"source": {"persistentVolumeClaimName": CLAIM}}
    obj = {"metadata": {}, "spec": spec, "status": status}
    assert parse_snapshot(obj) == expected
