"""Which backups are due by schedule, and which are not needed any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.backups import FINALIZER, backup
from wasession_api.v1alpha1 import BackupPhase, BackupStatus
from wasession_operator.backups.backup import Backup
from wasession_operator.backups.schedule import (
    NAME_MAXIMUM,
    InvalidSchedule,
    due,
    following,
    is_overdue,
    latest,
    make_backup,
    scheduled_name,
    superfluous,
)

DAILY = "0 3 * * *"
CREATED = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
THREE = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
NOON = THREE + timedelta(hours=9)
DAY = timedelta(days=1)


def scheduled(at: datetime, phase: BackupPhase | None = BackupPhase.COMPLETED) -> Backup:
    status = BackupStatus(phase=phase, taken_at=at if phase is BackupPhase.COMPLETED else None)
    name = scheduled_name("sales", at)
    return backup(status, name=name, is_scheduled=True, created_at=at)


def by_hand(at: datetime) -> Backup:
    return replace(scheduled(at), name="by-hand", is_scheduled=False)


def test_the_first_one_is_due_at_its_time_and_not_before() -> None:
    created = THREE - timedelta(hours=1)
    assert due(DAILY, THREE - timedelta(seconds=1), created, []) is None
    assert due(DAILY, THREE, created, []) == THREE
    assert due(DAILY, THREE + timedelta(seconds=59), created, []) == THREE


def test_none_is_due_from_before_the_session() -> None:
    assert due(DAILY, NOON, THREE + timedelta(minutes=1), []) is None


def test_of_those_missed_only_the_latest_is_due() -> None:
    assert due(DAILY, NOON, CREATED, [scheduled(THREE - 3 * DAY)]) == THREE


def test_one_is_made_once() -> None:
    for phase in (BackupPhase.COMPLETED, BackupPhase.FAILED):
        assert due(DAILY, NOON, CREATED, [scheduled(THREE, phase)]) is None
    assert due(DAILY, NOON, CREATED, [by_hand(THREE)]) == THREE, "a person's has no time"


@pytest.mark.parametrize("phase", [None, BackupPhase.PENDING, BackupPhase.RUNNING])
def test_while_one_waits_there_is_no_other(phase: BackupPhase | None) -> None:
    assert due(DAILY, NOON, CREATED, [scheduled(THREE - DAY, phase)]) is None


def test_one_whose_archive_cannot_be_deleted_holds_up_none() -> None:
    stuck = replace(scheduled(THREE - DAY), is_terminating=True, finalizers=FINALIZER)
    assert stuck.is_open
    assert due(DAILY, NOON, CREATED, [stuck]) == THREE


@pytest.mark.parametrize(
    "text", ["61 * * * *", "a b c d e", "0 0 30 2 *", "* * * * 8", "0 0 * * MON#6"]
)
def test_an_invalid_schedule_is_told(text: str) -> None:
    for read in (latest, following):
        with pytest.raises(InvalidSchedule, match="Bad "):
            read(text, NOON)


def test_the_name_says_the_time_so_that_it_is_created_once() -> None:
    manifest = make_backup(("ns", "sales"), THREE)
    assert manifest["metadata"] == {
        "namespace": "ns",
        "name": "sales-202601050300",
        "labels": {"wasession.dev/scheduled": "true"},
    }
    assert manifest["spec"] == {
        "sessionName": "sales",
        "method": "Archive",
        "deletionPolicy": "Delete",
    }
    assert scheduled(THREE).scheduled_at == THREE
    assert by_hand(THREE).scheduled_at is None


def test_long_names_fit_and_stay_different() -> None:
    names = {scheduled_name("a" * 250 + end, THREE) for end in ("a", "b")}
    assert len(names) == 2
    assert {len(name) for name in names} == {NAME_MAXIMUM}
    assert all(name.endswith("-202601050300") for name in names)


OTHERS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(BackupPhase)), unique_by=lambda other: other[0]
)


@given(st.integers(1, 5), OTHERS)
def test_what_is_superfluous(keep: int, others: list[tuple[int, BackupPhase]]) -> None:
    backups = [scheduled(THREE - days * DAY, phase) for days, phase in others]
    backups += [by_hand(THREE - 2 * DAY), by_hand(THREE - 20 * DAY)]
    extra = superfluous(backups, keep)
    assert all(b.is_scheduled and not b.is_open for b in extra)
    for phase in (BackupPhase.COMPLETED, BackupPhase.FAILED):
        own = [b for b in backups if b.is_scheduled and b.status.phase is phase]
        gone = [b for b in own if any(b is one for one in extra)]
        assert len(own) - len(gone) == min(len(own), keep)
        assert max((b.created_at for b in gone), default=CREATED - 99 * DAY) <= min(
            (b.created_at for b in own if b not in gone), default=NOON
        ), "the oldest ones go"
    completed = [b for b in backups if b.status.phase is BackupPhase.COMPLETED]
    newest = max(b.created_at for b in completed)
    assert any(b.created_at == newest and b not in extra for b in completed)


def test_the_latest_completed_one_stays_whatever_has_failed_since() -> None:
    only = scheduled(THREE - 9 * DAY)
    failed = [scheduled(THREE - days * DAY, BackupPhase.FAILED) for days in range(4)]
    assert superfluous([only, *failed], 2) == failed[2:]


def test_a_backup_is_overdue_some_time_after_it_was_due() -> None:
    yesterday = THREE - DAY
    assert not is_overdue(DAILY, THREE + timedelta(hours=1), CREATED, yesterday)
    assert is_overdue(DAILY, THREE + timedelta(hours=2), CREATED, yesterday)
    assert is_overdue(DAILY, NOON, CREATED, None)
    assert not is_overdue(DAILY, NOON, CREATED, THREE + timedelta(minutes=1))
    assert not is_overdue(DAILY, NOON, THREE + timedelta(hours=1), None), "it is too young"
