"""What to do next with a backup that is to be copied from another namespace."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.operator.backups import (
    EXPORTED,
    FINALIZER,
    IMPORT,
    ORIGIN_KEY,
    ORIGIN_SOURCE,
    SHA256,
    UID,
    backup,
    exported,
)
from unit.operator.situations import NOW
from wasession_api.session_pod.backup import ArchiveManifest
from wasession_api.v1alpha1 import BackupMethod, BackupPhase, BackupReason, BackupStatus
from wasession_operator.backups.backup import FINAL, Archive, is_below
from wasession_operator.backups.plan import (
    RECHECK,
    AddFinalizer,
    CopyArchive,
    Decision,
    DeleteArchive,
    Facts,
    Look,
    Origin,
    Problem,
    Progress,
    RemoveFinalizer,
    plan,
)
from wasession_operator.plan.facts import Backoff

KEY = f"ns/eu/20260101T030405Z-{UID[:8]}.tar.age"
MANIFEST = ArchiveManifest(
    backup_name="nightly",
    backup_uid=UID,
    source=ORIGIN_SOURCE,
    taken_at=NOW - timedelta(days=1),
    size=100,
    sha256=SHA256,
)
COMPLETE = Archive(100, MANIFEST, has_manifest=True)
IMPORTING = BackupStatus(
    phase=BackupPhase.RUNNING,
    reason=BackupReason.IMPORTING,
    key=KEY,
    attempts=1,
    started_at=NOW,
    source=ORIGIN_SOURCE,
)
COPY = CopyArchive(ORIGIN_KEY, KEY, MANIFEST)
ORIGIN = Origin(is_served=True, backup=exported())
LATER = Backoff(1, NOW + timedelta(seconds=30))
AWAY = Problem(BackupReason.STORE_UNAVAILABLE, "The store did not answer in time.")
DELETE = {**IMPORT, "deletion_policy": "Delete"}


def decide(
    status: BackupStatus | None = None,
    origin: Origin = ORIGIN,
    progress: Progress | None = None,
    **changes: Any,
) -> Decision:
    """Return what to do with an import, whose own archive has not been begun by default."""
    seen = Facts(NOW, origin=origin, progress=progress or Progress(archive=Archive()))
    return plan(backup(status, spec=IMPORT), replace(seen, **changes))


def reached(decision: Decision) -> tuple[BackupPhase | None, BackupReason | None]:
    return decision.status.phase, decision.status.reason


# --- what is exported -----------------------------------------------------------------------------


def test_an_import_is_written_down_before_anything_is_copied() -> None:
    assert decide(progress=Progress()) == Decision(IMPORTING, COPY)


def test_the_finalizer_comes_before_there_is_anything_to_delete() -> None:
    asked, seen = backup(spec=DELETE), Facts(NOW, origin=ORIGIN)
    assert plan(asked, seen) == Decision(asked.status, AddFinalizer())
    assert plan(replace(asked, finalizers=FINALIZER), seen) == Decision(IMPORTING, COPY)


def test_a_copy_with_its_manifest_is_the_same_login() -> None:
    decision = decide(IMPORTING, progress=Progress(archive=COMPLETE))
    assert reached(decision) == (BackupPhase.COMPLETED, BackupReason.COMPLETED)
    assert decision.action is None
    after = decision.status
    same = ("size", "sha256", "taken_at", "source")
    assert [getattr(after, field) for field in same] == [getattr(EXPORTED, f) for f in same]
    assert after.key == KEY


def test_another_replica_looks_first_and_copies_again() -> None:
    assert decide(IMPORTING, progress=Progress()) == Decision(IMPORTING, Look(KEY))
    assert decide(IMPORTING) == Decision(IMPORTING, COPY)
    half = Progress(archive=Archive(100))
    assert decide(IMPORTING, progress=half) == Decision(IMPORTING, COPY), "it may be torn"


def test_what_became_of_a_former_source_does_not_count() -> None:
    """It was deleted during the copy, and another one of its name is exported."""
    progress = Progress(archive=Archive(), copied=("sales/eu/former.tar.age", 0))
    assert decide(IMPORTING, progress=progress) == Decision(IMPORTING, COPY)


# --- what is not, yet -----------------------------------------------------------------------------

WAITING = [
    (Origin(is_served=True), BackupReason.NOT_EXPORTED),
    (replace(ORIGIN, backup=backup(EXPORTED, namespace="sales")), BackupReason.NOT_EXPORTED),
    (replace(ORIGIN, backup=exported(None, "nsx", "n")), BackupReason.NOT_EXPORTED),
    (replace(ORIGIN, backup=exported(is_terminating=True)), BackupReason.NOT_EXPORTED),
    (replace(ORIGIN, backup=exported(BackupStatus())), BackupReason.SOURCE_NOT_COMPLETED),
    (
        replace(ORIGIN, backup=exported(BackupStatus(phase=BackupPhase.RUNNING))),
        BackupReason.SOURCE_NOT_COMPLETED,
    ),
    (Origin(is_served=True, is_readable=False), BackupReason.SOURCE_NOT_SERVED),
]


@pytest.mark.parametrize(("origin", "reason"), WAITING)
def test_it_waits_and_says_what_for(origin: Origin, reason: BackupReason) -> None:
    decision = decide(origin=origin)
    assert reached(decision) == (BackupPhase.PENDING, reason)
    assert "sales" in decision.status.message
    assert decision.action is None
    assert (decision.requeue_after == RECHECK) is not origin.is_readable
    assert decide(decision.status).action == COPY, "it goes on as soon as it may"


@pytest.mark.parametrize(("origin", "reason"), WAITING)
def test_one_that_was_begun_copies_nothing_that_it_may_not(
    origin: Origin, reason: BackupReason
) -> None:
    decision = decide(IMPORTING, origin)
    assert (reached(decision), decision.action) == ((BackupPhase.PENDING, reason), None)
    assert decision.status.key == KEY
    assert decide(decision.status) == Decision(
        IMPORTING.model_copy(update={"message": ""}), COPY
    ), "it goes on where it was"


def test_whether_a_backup_exists_is_a_secret_of_its_namespace() -> None:
    statuses = [decide(origin=origin).status for origin, _ in WAITING[:4]]
    assert all(status == statuses[0] for status in statuses)
    assert "kubectl wasession -n sales export nightly --to ns" in statuses[0].message


def test_a_volume_snapshot_cannot_be_exported() -> None:
    source = exported()
    spec = source.spec.model_copy(update={"method": BackupMethod.VOLUME_SNAPSHOT})
    decision = decide(origin=replace(ORIGIN, backup=replace(source, spec=spec)))
    assert reached(decision) == (BackupPhase.PENDING, BackupReason.NOT_EXPORTED)


# --- what never will be ---------------------------------------------------------------------------

FAILED = BackupStatus(phase=BackupPhase.FAILED, reason=BackupReason.UPLOAD_FAILED)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"has_store": False}, BackupReason.STORE_NOT_CONFIGURED, "no store"),
        (
            {"origin": Origin(is_served=False)},
            BackupReason.SOURCE_NOT_SERVED,
            "does not serve the namespace sales",
        ),
        (
            {"origin": replace(ORIGIN, backup=exported(FAILED))},
            BackupReason.SOURCE_NOT_COMPLETED,
            "sales/nightly has failed",
        ),
        (
            {"progress": Progress(archive=Archive(), copied=(ORIGIN_KEY, 0))},
            BackupReason.ARCHIVE_MISSING,
            "not in the store any more",
        ),
        (
            {"progress": Progress(archive=Archive(), copied=(ORIGIN_KEY, 99))},
            BackupReason.ARCHIVE_INVALID,
            "has 99 bytes; it had 100 bytes",
        ),
    ],
)
def test_what_cannot_be_imported_fails(
    changes: dict[str, Any], reason: BackupReason, message: str
) -> None:
    for status in (None, IMPORTING):
        decision = decide(status, **changes)
        assert reached(decision) == (BackupPhase.FAILED, reason)
        assert message in decision.status.message
        assert decision.action is None
        assert decision.status.completed_at == NOW.replace(microsecond=0)


@pytest.mark.parametrize(
    "edited",
    [
        {"key": None},
        {"key": "hr/eu/20260102T030405Z-9c1d7e55.tar.age"},
        {"key": "sales/../hr/a.tar.age"},
        {"source": None},
        {"size": None},
        {"sha256": "x"},
        {"taken_at": None},
    ],
)
def test_no_archive_of_a_third_namespace_is_reached(edited: dict[str, Any]) -> None:
    """Whoever can edit the status of a backup may not export others with it."""
    source = exported(EXPORTED.model_copy(update=edited))
    decision = decide(origin=replace(ORIGIN, backup=source))
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.ARCHIVE_INVALID)
    assert decision.action is None


def test_nothing_is_copied_to_another_namespace() -> None:
    edited = IMPORTING.model_copy(update={"key": "other/eu/a.tar.age"})
    decision = decide(edited)
    assert reached(decision) == (BackupPhase.FAILED, BackupReason.ARCHIVE_INVALID)
    assert decision.action is None


def test_a_store_that_is_away_is_awaited() -> None:
    away = Progress(archive=Archive(), problem=AWAY, retry=LATER)
    decision = decide(IMPORTING, progress=away)
    assert reached(decision) == (BackupPhase.RUNNING, BackupReason.STORE_UNAVAILABLE)
    assert decision.requeue_after == timedelta(seconds=30)
    again = decide(decision.status, progress=replace(away, retry=Backoff()))
    assert again == Decision(IMPORTING, COPY)


# --- what was imported ----------------------------------------------------------------------------

DONE = IMPORTING.model_copy(update={"phase": BackupPhase.COMPLETED})


@pytest.mark.parametrize("origin", [origin for origin, _ in WAITING])
def test_what_was_imported_stays(origin: Origin) -> None:
    assert decide(DONE, origin) == Decision(DONE)
    finished = Progress(archive=COMPLETE)
    assert decide(IMPORTING, origin, finished).status.phase is BackupPhase.COMPLETED


def test_its_own_copy_alone_goes_with_it() -> None:
    asked = backup(DONE, spec=DELETE, is_terminating=True, finalizers=FINALIZER)
    seen = Facts(NOW, origin=ORIGIN)
    assert plan(asked, seen) == Decision(DONE, DeleteArchive(KEY))
    never_begun = replace(asked, status=BackupStatus())
    assert plan(never_begun, seen).action == RemoveFinalizer()


# --- invariants -----------------------------------------------------------------------------------

STATUSES = st.sampled_from(
    [
        None,
        BackupStatus(phase=BackupPhase.PENDING, reason=BackupReason.NOT_EXPORTED),
        IMPORTING,
        IMPORTING.model_copy(update={"phase": BackupPhase.PENDING}),
        IMPORTING.model_copy(update={"key": "other/eu/a.tar.age"}),
        DONE,
        FAILED,
    ]
)
SOURCES = st.builds(
    exported,
    st.sampled_from([EXPORTED, BackupStatus(), FAILED, EXPORTED.model_copy(update={"size": None})]),
    st.sampled_from(["ns", "other"]),
    is_terminating=st.booleans(),
)
ORIGINS = st.builds(Origin, st.booleans(), is_readable=st.booleans(), backup=st.none() | SOURCES)
PROGRESS = st.builds(
    Progress,
    archive=st.sampled_from([None, Archive(), Archive(100), COMPLETE]),
    copied=st.sampled_from([None, *((ORIGIN_KEY, size) for size in (0, 99, 100))]),
    problem=st.sampled_from([None, AWAY]),
    retry=st.sampled_from([Backoff(), LATER]),
)


@settings(max_examples=1000)
@given(STATUSES, ORIGINS, PROGRESS, st.booleans(), st.booleans(), st.booleans())
def test_the_invariants(
    status: BackupStatus | None,
    origin: Origin,
    progress: Progress,
    has_store: bool,
    deletes: bool,
    has_finalizer: bool,
) -> None:
    asked = backup(
        status,
        spec=DELETE if deletes else IMPORT,
        finalizers=FINALIZER if has_finalizer else (),
    )
    decision = plan(asked, Facts(NOW, has_store=has_store, origin=origin, progress=progress))
    before, after, action = asked.status, decision.status, decision.action
    if before.phase in FINAL:
        assert (after, action) == (before, None), "what is final stays so"
    if isinstance(action, CopyArchive):
        source = origin.backup
        assert has_store
        assert source is not None
        assert source.is_exported_to("ns"), "two people have agreed"
        assert origin.is_served
        assert not source.is_terminating
        assert is_below(action.source, "sales")
        assert is_below(action.key, "ns")
        assert after.key == action.key, "the key is written before the store has anything"
        assert has_finalizer or not deletes
        assert progress.archive != COMPLETE or before.key is None
    if after.phase is BackupPhase.COMPLETED and before.phase is not BackupPhase.COMPLETED:
        assert progress.archive == COMPLETE, "an archive is complete with its manifest"
        assert before.key == KEY
        assert after.source == ORIGIN_SOURCE, "the fence compares its login"
    assert action is None or isinstance(action, AddFinalizer | CopyArchive | Look)
    assert after.key in (before.key, KEY)
    assert decision.failure is None
    if action is None:
        again = plan(
            replace(asked, status=after),
            Facts(NOW, has_store=has_store, origin=origin, progress=progress),
        )
        assert again.status == after, "the same facts give the same decision"
