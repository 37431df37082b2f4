"""What to do next with a backup."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.operator.backups import (
    COMPLETE,
    FINALIZER,
    HOUR,
    KEY,
    MANIFEST,
    RECIPIENT,
    RUNNING,
    SHA256,
    SOURCE,
    UID,
    backup,
    facts,
    made,
    running_report,
    source_session,
)
from unit.operator.situations import NOW
from wasession_api.session_pod.backup import BackupState
from wasession_api.v1alpha1 import BackupPhase, BackupReason, BackupStatus
from wasession_operator.backups.backup import FINAL, Archive, is_below
from wasession_operator.backups.plan import (
    ANSWER_TIMEOUT,
    ATTEMPTS,
    DEADLINE,
    AddFinalizer,
    Complete,
    Decision,
    DeleteArchive,
    Facts,
    Look,
    Order,
    Ordered,
    Position,
    Problem,
    Progress,
    RemoveFinalizer,
    plan,
)
from wasession_operator.plan.facts import Backoff

DELETE = {"deletion_policy": "Delete"}
LATER = Backoff(1, NOW + timedelta(seconds=30))
AWAY = Problem(BackupReason.STORE_UNAVAILABLE, "The store did not answer in time.")
FAILED = Problem(BackupReason.UPLOAD_FAILED, "The upload has failed: it was torn.")


def reached(decision: Decision) -> tuple[BackupPhase | None, BackupReason | None]:
    return decision.status.phase, decision.status.reason


# --- the beginning --------------------------------------------------------------------------------


def test_a_backup_is_written_down_before_the_pod_is_asked() -> None:
    decision = plan(backup(), facts())
    assert decision == Decision(RUNNING, Order(KEY, (RECIPIENT,)))


def test_the_finalizer_comes_before_there_is_anything_to_delete() -> None:
    asked = backup(spec=DELETE)
    assert plan(asked, facts()) == Decision(asked.status, AddFinalizer())
    assert plan(replace(asked, finalizers=FINALIZER), facts()).status == RUNNING


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"session": None}, BackupReason.SESSION_NOT_FOUND, "does not exist"),
        (
            {"session": source_session(is_stopped=True)},
            BackupReason.SESSION_NOT_RUNNING,
            "is suspended or being deleted",
        ),
        (
            {"session": source_session(report=None)},
            BackupReason.SESSION_NOT_RUNNING,
            "does not run",
        ),
        (
            {"session": source_session(report=running_report(session_valid=False))},
            BackupReason.NO_LOGIN,
            "has no valid login",
        ),
        (
            {"session": source_session(report=running_report(can_back_up=False))},
            BackupReason.IMAGE_TOO_OLD,
            "too old",
        ),
        (
            {"session": source_session(recipients=None)},
            BackupReason.RECIPIENTS_MISSING,
            "class of WhatsAppSession sales is not known",
        ),
        ({"may_begin": False}, BackupReason.QUEUED, "Others are being uploaded"),
        (
            {"session": source_session(report=running_report(made(BackupState.RUNNING, id="x")))},
            BackupReason.QUEUED,
            "Another backup of WhatsAppSession sales",
        ),
    ],
)
def test_it_waits_and_says_what_for(
    changes: dict[str, Any], reason: BackupReason, message: str
) -> None:
    decision = plan(backup(), facts(**changes))
    assert reached(decision) == (BackupPhase.PENDING, reason)
    assert message in decision.status.message
    assert decision.action is None
    assert plan(backup(decision.status), facts()).status.phase is BackupPhase.RUNNING


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"has_store": False}, BackupReason.STORE_NOT_CONFIGURED),
        ({"session": source_session(recipients=())}, BackupReason.RECIPIENTS_MISSING),
    ],
)
def test_what_a_person_has_to_set_up_first_fails_at_once(
    changes: dict[str, Any], reason: BackupReason
) -> None:
    decision = plan(backup(), facts(**changes))
    assert reached(decision) == (BackupPhase.FAILED, reason)
    assert decision.status.completed_at == NOW.replace(microsecond=0)


# --- the upload -----------------------------------------------------------------------------------


def ordered(ago: timedelta = timedelta(0), started: timedelta = timedelta(0)) -> Progress:
    pod = running_report()
    return Progress(Ordered(NOW - ago, pod.started_at - started), archive=Archive())


def test_the_pod_is_asked_again_by_a_replica_that_knows_of_nothing() -> None:
    fresh = facts(progress=Progress())
    assert plan(backup(RUNNING), fresh).action == Look(KEY), "it may be there already"
    assert plan(backup(RUNNING), facts()).action == Order(KEY, (RECIPIENT,))


def test_what_another_replica_has_completed_is_completed() -> None:
    decision = plan(backup(RUNNING), facts(session=None, progress=Progress(archive=COMPLETE)))
    assert reached(decision) == (BackupPhase.COMPLETED, BackupReason.COMPLETED)


def test_an_upload_under_way_is_awaited_until_the_deadline() -> None:
    decision = plan(backup(RUNNING), facts(made(BackupState.RUNNING)))
    assert decision == Decision(RUNNING, requeue_after=DEADLINE)
    decision = plan(backup(RUNNING), facts(made(BackupState.RUNNING), now=NOW + HOUR))
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.DEADLINE_EXCEEDED)


def test_an_upload_is_verified_before_it_counts() -> None:
    decision = plan(backup(RUNNING), facts(made(BackupState.UPLOADED)))
    assert (decision.status, decision.action) == (RUNNING, Complete(KEY, MANIFEST))
    decision = plan(backup(RUNNING), facts(progress=Progress(archive=COMPLETE)))
    assert decision.status == RUNNING.model_copy(
        update={
            "phase": BackupPhase.COMPLETED,
            "reason": BackupReason.COMPLETED,
            "taken_at": NOW,
            "completed_at": NOW,
            "size": 100,
            "sha256": SHA256,
        }
    )


@pytest.mark.parametrize("missing", ["size", "sha256", "taken_at"])
def test_a_pod_that_does_not_say_what_it_has_uploaded_has_failed(missing: str) -> None:
    decision = plan(backup(RUNNING), facts(made(BackupState.UPLOADED, **{missing: None})))
    assert decision.failure is not None
    assert "has not reported what it has uploaded" in decision.failure.message


def test_somebody_elses_manifest_under_the_key_completes_nothing() -> None:
    other = Archive(100, MANIFEST.model_copy(update={"backup_uid": "another"}), has_manifest=True)
    decision = plan(backup(RUNNING), facts(progress=Progress(archive=other)))
    assert decision.action == Order(KEY, (RECIPIENT,))


def test_a_failure_is_told_and_tried_again_after_a_while() -> None:
    torn = made(BackupState.FAILED, error="it was torn")
    decision = plan(backup(RUNNING), facts(torn))
    assert decision.failure == FAILED
    waiting = Progress(archive=Archive(), problem=FAILED, retry=LATER)
    decision = plan(backup(RUNNING), facts(torn, progress=waiting))
    assert reached(decision) == (BackupPhase.RUNNING, BackupReason.UPLOAD_FAILED)
    assert decision.status.message == FAILED.message
    assert decision.requeue_after == timedelta(seconds=30)
    decision = plan(
        backup(decision.status), facts(torn, progress=replace(waiting, retry=Backoff()))
    )
    assert decision.status == RUNNING.model_copy(update={"attempts": 2})
    assert decision.action == Order(KEY, (RECIPIENT,))


def test_a_failure_of_the_last_attempt_is_not_taken_for_one_of_this_attempt() -> None:
    pod = running_report(made(BackupState.FAILED, error="it was torn"))
    before = replace(ordered(), outdated=Position(pod.started_at, pod.seq))
    session = source_session(report=pod)
    decision = plan(backup(RUNNING), facts(session=session, progress=before))
    assert decision == Decision(RUNNING, requeue_after=ANSWER_TIMEOUT)
    newer = source_session(report=pod.model_copy(update={"seq": pod.seq + 1}))
    assert plan(backup(RUNNING), facts(session=newer, progress=before)).failure == FAILED


def test_the_last_attempt_ends_it() -> None:
    status = RUNNING.model_copy(update={"attempts": ATTEMPTS})
    failed = Progress(archive=Archive(), problem=FAILED, retry=LATER)
    decision = plan(backup(status), facts(progress=failed))
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.UPLOAD_FAILED)
    assert decision.status.message.startswith(FAILED.message)


def test_a_pod_that_has_restarted_or_says_nothing_has_failed() -> None:
    decision = plan(backup(RUNNING), facts(progress=ordered(started=HOUR)))
    assert decision.failure is not None
    assert "has restarted" in decision.failure.message
    decision = plan(backup(RUNNING), facts(progress=ordered()))
    assert decision == Decision(RUNNING, requeue_after=ANSWER_TIMEOUT)
    decision = plan(backup(RUNNING), facts(progress=ordered(ago=ANSWER_TIMEOUT)))
    assert decision.failure is not None
    assert "does not report" in decision.failure.message


def test_it_fails_with_its_session() -> None:
    other = SOURCE.model_copy(update={"session_uid": "uid-2"})
    for session in (None, source_session(source=other)):
        decision = plan(backup(RUNNING), facts(session=session))
        assert reached(decision) == (BackupPhase.FAILED, BackupReason.SESSION_NOT_FOUND)


def test_a_store_that_is_away_is_no_failed_attempt() -> None:
    away = Progress(archive=Archive(), problem=AWAY, retry=LATER)
    decision = plan(backup(RUNNING), facts(progress=away))
    assert reached(decision) == (BackupPhase.RUNNING, BackupReason.STORE_UNAVAILABLE)
    decision = plan(backup(RUNNING), facts(progress=replace(away, retry=Backoff())))
    assert decision.status.attempts == 1
    assert decision.action == Order(KEY, (RECIPIENT,))


@pytest.mark.parametrize(
    "error",
    [
        "PUT https://bucket.s3.example/key?X-Amz-Signature=secret failed",
        "PUT bucket/key?sig=1&signature=secret failed",
    ],
)
def test_a_signed_url_does_not_reach_the_status(error: str) -> None:
    decision = plan(backup(RUNNING), facts(made(BackupState.FAILED, error=error)))
    assert decision.failure is not None
    assert decision.failure.message == "The upload has failed: PUT … failed."


# --- archives that are there already --------------------------------------------------------------


def imported(archive: Archive | None, key: str = KEY, **more: Any) -> Decision:
    spec = {"key": key, **more}
    return plan(backup(spec=spec), facts(session=None, progress=Progress(archive=archive)))


def test_an_archive_is_looked_at_and_completed_without_a_session() -> None:
    assert imported(None) == Decision(BackupStatus(), Look(KEY))
    decision = imported(COMPLETE)
    assert reached(decision) == (BackupPhase.COMPLETED, BackupReason.COMPLETED)
    assert (decision.status.key, decision.status.source) == (KEY, SOURCE)
    assert imported(COMPLETE, **DELETE).action == AddFinalizer()


@pytest.mark.parametrize(
    ("archive", "reason", "message"),
    [
        (Archive(), BackupReason.ARCHIVE_MISSING, "has no archive"),
        (Archive(None, MANIFEST, True), BackupReason.ARCHIVE_MISSING, "has no archive"),
        (Archive(100), BackupReason.ARCHIVE_INVALID, "has no manifest"),
        (Archive(100, None, True), BackupReason.ARCHIVE_INVALID, "has an invalid manifest"),
        (Archive(99, MANIFEST, True), BackupReason.ARCHIVE_INVALID, "has 99 bytes"),
    ],
)
def test_what_is_no_archive_fails(archive: Archive, reason: BackupReason, message: str) -> None:
    decision = imported(archive)
    assert reached(decision) == (BackupPhase.FAILED, reason)
    assert message in decision.status.message


@pytest.mark.parametrize(
    "key",
    [
        "other/sales/a.tar.age",
        "ns-b/a.age",
        "ns.age",
        "ns/../other/a.age",
        "ns//a.age",
        "/ns/a.age",
    ],
)
def test_no_archive_of_another_namespace_is_reached(key: str) -> None:
    assert not is_below(key, "ns")
    decision = imported(None, key)
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.ARCHIVE_INVALID)
    assert decision.action is None
    deleted = backup(spec={"key": key}, is_terminating=True, finalizers=FINALIZER)
    assert plan(deleted, facts()).action == RemoveFinalizer(), "and none is deleted"


# --- the deletion ---------------------------------------------------------------------------------

DONE = RUNNING.model_copy(update={"phase": BackupPhase.COMPLETED, "message": ""})


def deleted(*, status: BackupStatus = DONE, is_abandoned: bool = False, **changes: Any) -> Decision:
    asked = backup(
        status,
        spec=DELETE,
        is_terminating=True,
        finalizers=FINALIZER,
        is_abandoned=is_abandoned,
    )
    return plan(asked, facts(**changes))


def test_the_archive_goes_first() -> None:
    assert deleted() == Decision(DONE, DeleteArchive(KEY))
    assert deleted(progress=Progress(deleted=True)) == Decision(DONE, RemoveFinalizer())


@pytest.mark.parametrize(
    "changes",
    [
        {"is_abandoned": True, "has_store": False},
        {"is_archive_shared": True},
        {"is_namespace_terminating": True},
        {"status": BackupStatus()},
    ],
    ids=["abandoned", "shared", "with its namespace", "never begun"],
)
def test_an_archive_stays(changes: dict[str, Any]) -> None:
    assert deleted(**changes).action == RemoveFinalizer()


def test_it_waits_for_the_store_and_says_how_to_let_it_go() -> None:
    away = Progress(problem=AWAY, retry=LATER)
    decision = deleted(progress=away)
    assert decision.action is None
    assert decision.requeue_after == timedelta(seconds=30)
    assert decision.status.phase is BackupPhase.COMPLETED
    assert "wasession.dev/abandon-archive=true" in decision.status.message
    assert deleted(progress=replace(away, retry=Backoff())).action == DeleteArchive(KEY)
    decision = deleted(has_store=False)
    assert decision.action is None
    assert "no store" in decision.status.message


def test_without_its_finalizer_there_is_nothing_to_do() -> None:
    assert plan(backup(DONE, is_terminating=True), facts()) == Decision(DONE)


# --- invariants -----------------------------------------------------------------------------------

STATUSES = st.sampled_from(
    [
        BackupStatus(),
        BackupStatus(phase=BackupPhase.PENDING, reason=BackupReason.QUEUED),
        RUNNING,
        RUNNING.model_copy(update={"attempts": ATTEMPTS}),
        RUNNING.model_copy(update={"started_at": NOW - HOUR}),
        RUNNING.model_copy(update={"source": None}),
        DONE,
        BackupStatus(phase=BackupPhase.FAILED, reason=BackupReason.ARCHIVE_MISSING),
    ]
)
REPORTS = st.sampled_from(
    [
        None,
        running_report(),
        running_report(session_valid=False),
        running_report(can_back_up=False),
        *(running_report(made(state)) for state in BackupState),
        running_report(made(BackupState.RUNNING, id="another")),
    ]
)
SESSIONS = st.none() | st.builds(
    source_session,
    report=REPORTS,
    is_stopped=st.booleans(),
    recipients=st.sampled_from([(RECIPIENT,), (), None]),
)
PROGRESS = st.builds(
    Progress,
    ordered=st.sampled_from([None, ordered().ordered, ordered(started=HOUR).ordered]),
    outdated=st.sampled_from([None, Position(running_report().started_at, 10**6)]),
    archive=st.sampled_from([None, Archive(), Archive(100), COMPLETE]),
    deleted=st.booleans(),
    problem=st.sampled_from([None, AWAY, FAILED]),
    retry=st.sampled_from([Backoff(), LATER]),
)
FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    has_store=st.booleans(),
    session=SESSIONS,
    may_begin=st.booleans(),
    is_archive_shared=st.booleans(),
    is_namespace_terminating=st.booleans(),
    progress=PROGRESS,
)
BACKUPS = st.builds(
    backup,
    STATUSES,
    spec=st.sampled_from([{}, DELETE, {"key": KEY}, {"key": KEY, **DELETE}, {"key": "b/c.age"}]),
    is_terminating=st.booleans(),
    finalizers=st.sampled_from([(), FINALIZER, ("other", *FINALIZER)]),
    is_abandoned=st.booleans(),
)


@settings(max_examples=1000)
@given(BACKUPS, FACTS)
def test_the_invariants(given_backup: Any, seen: Facts) -> None:
    decision = plan(given_backup, seen)
    before, after, action = given_backup.status, decision.status, decision.action
    mine = names_finalizer(given_backup.finalizers)
    if before.phase in FINAL:
        assert after.phase is before.phase, "what is final stays so"
    if isinstance(action, DeleteArchive):
        assert given_backup.is_terminating
        assert mine, "only who has asked for it loses an archive"
        assert is_below(action.key, "ns")
        assert not given_backup.is_abandoned
        assert not seen.is_archive_shared
        assert not seen.is_namespace_terminating
    if isinstance(action, Order | Complete):
        assert after.phase is BackupPhase.RUNNING
        assert after.key == action.key, "the key is written before the store has anything"
        assert given_backup.spec.key is None, "nothing is uploaded over an archive"
        assert given_backup.spec.deletion_policy == "Retain" or mine or before.key is not None
    if isinstance(action, Order):
        assert seen.session is not None
        assert seen.session.report is not None
    if isinstance(action, AddFinalizer | RemoveFinalizer):
        assert after == before
        assert isinstance(action, RemoveFinalizer) is mine
    if action is not None and not isinstance(action, AddFinalizer | RemoveFinalizer):
        assert seen.has_store
    if after.phase is BackupPhase.COMPLETED and before.phase is not BackupPhase.COMPLETED:
        assert seen.progress.archive == COMPLETE, "an archive is complete with its manifest"
        assert (after.size, after.sha256, after.source) == (100, SHA256, SOURCE)
    assert 0 <= after.attempts - before.attempts <= 1
    assert after.attempts <= ATTEMPTS
    if decision.failure is not None:
        assert (after, action) == (before, None)
    assert after.key in (before.key, KEY)
    assert decision.requeue_after is None or decision.requeue_after > timedelta(0)
    again = plan(replace(given_backup, status=after), seen)
    if after.attempts == before.attempts and action is None and decision.failure is None:
        assert again == decision, "the same facts give the same decision"


def names_finalizer(finalizers: tuple[str, ...]) -> bool:
    return FINALIZER[0] in finalizers


def test_the_key_says_where_and_of_which_backup_it_is() -> None:
    key = f"ns/sales/20260102T030405Z-{UID[:8]}.tar.age"
    assert plan(backup(), facts()).status.key == key
