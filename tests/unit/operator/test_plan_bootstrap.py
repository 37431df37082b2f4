"""Volumes that begin with a backup, and logins of which several sessions have a copy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    condition,
    facts,
    message,
    of,
    plan,
    pod,
    report,
    session,
    template_of,
)
from wasession_api.session_pod.backup import Restoration
from wasession_api.v1alpha1 import (
    BackupPhase,
    BackupSource,
    BackupStatus,
    BootstrapState,
    BootstrapStatus,
    ConditionType,
    Phase,
    Reason,
    Status,
)
from wasession_operator import objects
from wasession_operator.objects import Restore
from wasession_operator.plan import Facts, Plan
from wasession_operator.plan.actions import (
    ApplySecret,
    CreatePod,
    CreatePvc,
    DeletePod,
    RepairPvc,
)
from wasession_operator.plan.bootstrap import UNSERVED_FIRST, UNSERVED_LAST
from wasession_operator.plan.facts import LoginHolder, NamedBackup

LOGIN = "uid-0"  # of the session that linked the phone
KEY = "ns/sales/20260101T030000Z-b1.tar.age"
SPEC: dict[str, Any] = {"bootstrap": {"fromBackup": {"name": "nightly"}}}
FENCED: dict[str, Any] = {"bootstrap": {"fromBackup": {"name": "nightly"}, "fenced": True}}
SOURCE = BackupSource(
    cluster="c1",
    namespace="ns",
    session_name="old",
    session_uid=LOGIN,
    login_id=LOGIN,
    client_id="old",
)
COMPLETED = BackupStatus(
    phase=BackupPhase.COMPLETED, key=KEY, size=1000, sha256="5" * 64, source=SOURCE, taken_at=NOW
)
BACKUP = NamedBackup("b1", COMPLETED, is_served=True)
LATER, EARLIER = NOW + timedelta(seconds=1), NOW - timedelta(hours=1)
STOPPED = LoginHolder("ns/old", "uid-0", EARLIER, is_stopped=True, has_pod=False)
RUNNING = LoginHolder("ns/old", "uid-0", None, is_stopped=False)
UNSERVED = replace(RUNNING, is_served=False)
NEWER = LoginHolder("ns/copy", "uid-2", LATER, is_stopped=True, has_pod=False)


def bootstrap(state: BootstrapState = BootstrapState.RESTORING) -> BootstrapStatus:
    return BootstrapStatus(backup_uid="b1", login_id=LOGIN, state=state, at=NOW)


BEGUN = Status(bootstrap=bootstrap())


def empty(**changes: Any) -> Facts:
    """Return the facts of a session that has neither pod nor claim yet."""
    return facts(**{"pod": None, "pvc": None, "backup": BACKUP, **changes})


def begin(status: Status | None = None, spec: dict[str, Any] | None = None, **changes: Any) -> Plan:
    return plan(session(status, **(spec or SPEC)), empty(**changes), SETTINGS)


MOVED = plan(session(VALID), facts(pod=None, login_holders=(NEWER,)), SETTINGS).status


def creates(result: Plan) -> list[Any]:
    return of(CreatePvc, result) + of(CreatePod, result)


# --- a volume that begins with a backup -----------------------------------------------------------


def test_it_is_written_that_the_session_restores_before_there_is_a_volume() -> None:
    result = begin()
    assert creates(result) == []
    assert result.status.bootstrap == bootstrap()
    assert result.requeue_after == timedelta(0)


def test_the_pod_restores_before_the_session_starts() -> None:
    result = begin(BEGUN, pvc=None)
    assert of(CreatePvc, result) != []
    [create] = of(CreatePod, result)
    assert create.restore == Restore("b1", LOGIN, KEY, 1000, "5" * 64)
    assert create.restoring
    assert of(ApplySecret, result) == [ApplySecret(0, KEY)], "with a signed URL of the archive"


def test_of_all_containers_one_has_the_key_and_the_url() -> None:
    started = session(BEGUN, **SPEC)
    identity = ("ns", "sales", "uid-1", started.spec, SETTINGS)
    restore = Restore("b1", LOGIN, KEY, 1000, "5" * 64)
    made = objects.make_pod(*identity, restoring=True, restore=restore)
    [init], [main] = made["spec"]["initContainers"], made["spec"]["containers"]
    assert {mount["name"] for mount in init["volumeMounts"]} - {
        mount["name"] for mount in main["volumeMounts"]
    } == {"identity"}
    assert "WASESSION_RESTORE_URL" not in {variable["name"] for variable in main["env"]}
    assert init["securityContext"] == main["securityContext"]
    [url] = [v for v in init["env"] if v["name"] == "WASESSION_RESTORE_URL"]
    assert url["valueFrom"]["secretKeyRef"] == {
        "name": "wasession-token-sales",
        "key": "restore-url",
    }
    plain = objects.make_pod(*identity, restoring=True)
    hashes = {p["metadata"]["annotations"]["wasession.dev/template-hash"] for p in (made, plain)}
    assert hashes == {template_of(started)}, "the next pod, without it, is of the same template"


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (Restoration(backup="b1", restored=True, login_id=LOGIN, at=NOW), BootstrapState.RESTORED),
        (Restoration(backup="b1", restored=False, at=NOW), BootstrapState.SKIPPED),
        (Restoration(backup="b1", restored=True, at=NOW), BootstrapState.SKIPPED),
        (None, BootstrapState.SKIPPED),
    ],
)
def test_the_pod_reports_what_became_of_it(
    record: Restoration | None, state: BootstrapState
) -> None:
    told = report(session_valid=True, is_authenticated=True, restoration=record)
    result = plan(session(BEGUN, **SPEC), facts(report=told, backup=BACKUP), SETTINGS)
    assert result.status.bootstrap == bootstrap(state)
    again = plan(session(result.status, **SPEC), facts(report=told, backup=BACKUP), SETTINGS)
    skipped = state is BootstrapState.SKIPPED
    expected = ("True", Reason.BOOTSTRAP_SKIPPED) if skipped else ("False", Reason.AS_EXPECTED)
    assert condition(again, ConditionType.DEGRADED) == expected
    lost = plan(session(again.status, **SPEC), empty(pvc=facts().pvc), SETTINGS)
    assert [create.restore for create in of(CreatePod, lost)] == [None], "once"


def test_a_pod_that_has_not_read_its_volume_proves_nothing() -> None:
    told = report(Phase.STARTING, session_valid=None, reason="BrowserStarting")
    result = plan(session(BEGUN, **SPEC), facts(report=told, backup=BACKUP), SETTINGS)
    assert result.status.bootstrap == bootstrap()


def test_a_session_that_has_its_own_login_is_left_alone() -> None:
    result = plan(session(VALID, **SPEC), facts(pod=None, backup=BACKUP), SETTINGS)
    assert [create.restore for create in of(CreatePod, result)] == [None]


def test_a_restoration_can_be_called_off() -> None:
    result = plan(session(BEGUN), empty(backup=None), SETTINGS)
    assert result.status.bootstrap is None
    assert [create.restore for create in of(CreatePod, result)] == [None]


def test_one_that_is_called_off_too_late_is_one_all_the_same() -> None:
    """The volume may have the login by now: only its pod knows."""
    for changes in ({}, {"pod": None}):
        result = plan(session(BEGUN), facts(backup=None, **changes), SETTINGS)
        assert result.status.bootstrap == bootstrap()
    record = Restoration(backup="b1", restored=True, login_id=LOGIN, at=NOW)
    told = report(session_valid=True, is_authenticated=True, restoration=record)
    result = plan(session(BEGUN), facts(report=told), SETTINGS)
    assert result.status.bootstrap == bootstrap(BootstrapState.RESTORED)
    empty_volume = plan(session(BEGUN), facts(report=report()), SETTINGS)
    assert empty_volume.status.bootstrap is None


def test_another_backup_replaces_the_pod_that_restores_the_first() -> None:
    other = replace(BACKUP, uid="b2")
    pending = pod(ready=False, phase="Pending")
    result = plan(session(BEGUN, **SPEC), facts(pod=pending, backup=other), SETTINGS)
    [deletion] = of(DeletePod, result)
    assert deletion.reason is Reason.VOLUME_RESTORING
    assert result.status.bootstrap == bootstrap(), "until it is gone"
    gone = plan(session(result.status, **SPEC), facts(pod=None, backup=other), SETTINGS)
    assert gone.status.bootstrap is not None
    assert gone.status.bootstrap.backup_uid == "b2"
    record = Restoration(backup="b1", restored=True, login_id=LOGIN, at=NOW)
    told = report(session_valid=True, is_authenticated=True, restoration=record)
    late = plan(session(gone.status, **SPEC), facts(report=told, backup=other), SETTINGS)
    assert late.status.bootstrap == bootstrap(BootstrapState.RESTORED), "the first was quicker"


def test_a_pod_whose_login_has_moved_is_stopped() -> None:
    """Its volume was left behind by the session that had the login first."""
    told = report(session_valid=True, login_id=LOGIN)
    result = plan(session(VALID), facts(report=told, login_holders=(NEWER,)), SETTINGS)
    [deletion] = of(DeletePod, result)
    assert deletion.reason is Reason.LOGIN_MOVED
    gone = plan(session(result.status), facts(pod=None, login_holders=(NEWER,)), SETTINGS)
    assert gone.status.phase is Phase.FAILED
    assert gone.status.restarts.count == 0


def test_the_login_ends_with_the_restored_one() -> None:
    restored = Status(session_valid=True, bootstrap=bootstrap(BootstrapState.RESTORED))
    told = report(Phase.LOGGED_OUT, session_valid=False, reason="LoggedOutByPhone")
    result = plan(session(restored), facts(report=told), SETTINGS)
    assert result.status.bootstrap == bootstrap(BootstrapState.ENDED)


def test_a_session_takes_over_a_volume_that_another_one_has_restored() -> None:
    record = Restoration(backup="b1", restored=True, login_id=LOGIN, at=NOW)
    told = report(session_valid=True, is_authenticated=True, restoration=record)
    result = plan(session(Status()), facts(report=told), SETTINGS)
    assert result.status.bootstrap == bootstrap(BootstrapState.RESTORED)


def test_a_failing_restoration_is_shown_in_its_own_words() -> None:
    sentence = "The identity in wasession-backup-identity cannot decrypt the archive."
    for which in ("state", "lastState"):
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": sentence}}
        pending = pod(ready=False, phase="Pending")
        pending["status"]["initContainerStatuses"] = [{"name": "restore", which: ended}]
        result = plan(session(BEGUN, **SPEC), facts(pod=pending, backup=BACKUP), SETTINGS)
        assert condition(result, ConditionType.DEGRADED) == ("True", Reason.BOOTSTRAP_FAILED)
        assert message(result, ConditionType.READY) == sentence
        assert result.status.phase is not Phase.READY


def test_a_volume_that_was_there_before_needs_no_backup_any_more() -> None:
    """Its session was restored without status, long after the backup was deleted."""
    result = begin(pvc=facts().pvc, backup=None)
    assert [create.restore for create in of(CreatePod, result)] == [None]
    waits = begin(pvc=facts().pvc, backup=None, login_holders=(RUNNING,))
    assert of(CreatePod, waits) == []


# --- what keeps it from beginning -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "spec", "reason"),
    [
        ({"backup": None}, SPEC, Reason.BACKUP_NOT_FOUND),
        (
            {"backup": replace(BACKUP, status=BackupStatus(phase=BackupPhase.RUNNING))},
            SPEC,
            Reason.BACKUP_NOT_COMPLETED,
        ),
        (
            {"backup": replace(BACKUP, status=BackupStatus(phase=BackupPhase.COMPLETED))},
            SPEC,
            Reason.BACKUP_NOT_COMPLETED,
        ),
        ({"backup": replace(BACKUP, is_served=False)}, SPEC, Reason.BACKUP_SOURCE_NOT_FENCED),
        ({"login_holders": (RUNNING,)}, SPEC, Reason.BACKUP_SOURCE_RUNNING),
        ({"login_holders": (STOPPED, RUNNING)}, FENCED, Reason.BACKUP_SOURCE_RUNNING),
        ({"login_holders": (STOPPED, UNSERVED)}, SPEC, Reason.BACKUP_SOURCE_RUNNING),
        ({"login_survey_gap": "forbidden"}, SPEC, Reason.BACKUP_SOURCE_NOT_FENCED),
    ],
)
@pytest.mark.parametrize("status", [Status(), BEGUN], ids=["new", "begun"])
def test_nothing_is_created_before(
    status: Status, changes: dict[str, Any], spec: dict[str, Any], reason: Reason
) -> None:
    result = begin(status, spec, **changes)
    assert creates(result) == []
    assert result.status.bootstrap == status.bootstrap
    assert condition(result, ConditionType.READY) == ("False", reason)
    assert condition(result, ConditionType.DEGRADED) == ("True", reason)


def test_a_person_can_vouch_for_another_cluster() -> None:
    result = begin(spec=FENCED, backup=replace(BACKUP, is_served=False))
    assert result.status.bootstrap == bootstrap()


def test_a_person_can_vouch_for_namespaces_that_are_not_served() -> None:
    refused = begin(BEGUN, login_survey_gap="forbidden")
    assert "forbidden" in message(refused, ConditionType.READY)
    refused = begin(BEGUN, login_holders=(UNSERVED,))
    assert "does not serve" in message(refused, ConditionType.READY)
    vouched = begin(BEGUN, FENCED, login_holders=(UNSERVED,), login_survey_gap="forbidden")
    assert len(creates(vouched)) == 2


def test_nobody_vouches_for_a_volume_that_was_taken_over() -> None:
    taken = facts(pod=None, pvc=noting(LOGIN), login_holders=(UNSERVED,))
    result = plan(session(Status()), taken, SETTINGS)
    assert of(CreatePod, result) == []
    assert "spec.bootstrap" not in message(result, ConditionType.READY)


def test_a_login_that_has_moved_does_not_start_where_it_was() -> None:
    for status in (VALID, Status(bootstrap=bootstrap(BootstrapState.RESTORED))):
        result = plan(session(status), empty(backup=None, login_holders=(NEWER,)), SETTINGS)
        assert creates(result) == []
        assert result.status.phase is Phase.FAILED
        assert condition(result, ConditionType.READY) == ("False", Reason.LOGIN_MOVED)


def test_a_suspended_session_is_not_bothered_with_that() -> None:
    result = plan(session(VALID, suspend=True), facts(pod=None, login_holders=(NEWER,)), SETTINGS)
    assert result.status.phase is Phase.SUSPENDED
    assert condition(result, ConditionType.DEGRADED) == ("False", Reason.AS_EXPECTED)


def test_the_latest_copy_starts_when_the_others_have_stopped() -> None:
    status = VALID.model_copy(update={"bootstrap": bootstrap(BootstrapState.RESTORED)})
    waits = plan(session(status), facts(pod=None, login_holders=(RUNNING,)), SETTINGS)
    assert condition(waits, ConditionType.READY) == ("False", Reason.BACKUP_SOURCE_RUNNING)
    starts = plan(session(status), facts(pod=None, login_holders=(STOPPED,)), SETTINGS)
    assert len(of(CreatePod, starts)) == 1


def test_a_login_that_has_moved_does_not_come_back_because_the_other_cannot_be_seen() -> None:
    blind = facts(pod=None, backup=None, login_survey_gap="forbidden")
    kept = plan(session(MOVED), blind, SETTINGS)
    assert of(CreatePod, kept) == []
    assert condition(kept, ConditionType.READY) == ("False", Reason.LOGIN_MOVED)
    assert "forbidden" in message(kept, ConditionType.READY)
    sure = plan(session(kept.status), facts(pod=None, backup=None), SETTINGS)
    assert len(of(CreatePod, sure)) == 1


def waits(result: Plan) -> timedelta | None:
    """Return after how long a session that does not start looks again."""
    assert of(CreatePod, result) == []
    return result.requeue_after


@pytest.mark.parametrize(
    ("known", "spec", "changes", "reason"),
    [
        (BEGUN, SPEC, {"login_survey_gap": "forbidden"}, Reason.BACKUP_SOURCE_NOT_FENCED),
        (BEGUN, SPEC, {"login_holders": (UNSERVED,)}, Reason.BACKUP_SOURCE_RUNNING),
        (VALID, {}, {"login_holders": (replace(NEWER, is_served=False),)}, Reason.LOGIN_MOVED),
        (MOVED, {}, {"login_survey_gap": "forbidden"}, Reason.LOGIN_MOVED),
        (
            Status(),
            {},
            {"login_survey_gap": "forbidden", "last_backup": NOW},
            Reason.BACKUP_SOURCE_NOT_FENCED,
        ),
    ],
)
def test_what_no_event_tells_of_is_looked_at_again(
    known: Status, spec: dict[str, Any], changes: dict[str, Any], reason: Reason
) -> None:
    """The right to see it may be granted at any time: nobody has to say so."""
    status, pauses, now = known, [], NOW
    for _ in range(12):
        present = empty(**changes) if spec else facts(pod=None, **changes)
        seen = replace(present, now=now)
        result = plan(session(status, **spec), seen, SETTINGS)
        assert condition(result, ConditionType.READY) == ("False", reason)
        pause = waits(result)
        assert pause is not None
        pauses.append(pause)
        status, now = result.status, now + pause
    assert pauses == sorted(pauses)
    assert pauses[0] == UNSERVED_FIRST
    assert pauses[-1] == UNSERVED_LAST


def test_a_session_without_its_status_may_have_a_copy_that_cannot_be_seen() -> None:
    unsure = facts(pod=None, pvc=noting(LOGIN), login_survey_gap="forbidden", last_backup=NOW)
    result = plan(session(Status()), unsure, SETTINGS)
    assert of(CreatePod, result) == []
    assert "forbidden" in message(result, ConditionType.READY)
    again = plan(session(result.status), unsure, SETTINGS)
    assert of(CreatePod, again) == [], "that it has written so proves nothing"
    seen = facts(pod=None, pvc=noting(LOGIN), last_backup=NOW)
    assert len(of(CreatePod, plan(session(again.status), seen, SETTINGS))) == 1

    suspended = plan(session(again.status, suspend=True), unsure, SETTINGS)
    resumed = plan(session(suspended.status), unsure, SETTINGS)
    assert len(of(CreatePod, resumed)) == 1, "a person has looked"


def test_a_login_without_a_backup_has_no_copy_that_cannot_be_seen() -> None:
    alone = facts(pod=None, pvc=noting(LOGIN), login_survey_gap="forbidden")
    assert len(of(CreatePod, plan(session(Status()), alone, SETTINGS))) == 1


def test_a_session_without_its_status_does_not_use_a_login_that_has_moved() -> None:
    """Its backup is gone, so that nothing is restored on the volume, which may have the login."""
    seen = facts(pod=None, backup=None, login_holders=(NEWER,))
    result = plan(session(Status(), **SPEC), seen, SETTINGS)
    assert of(CreatePod, result) == []
    assert condition(result, ConditionType.READY) == ("False", Reason.LOGIN_MOVED)


HOLDERS = st.lists(
    st.builds(
        LoginHolder,
        st.sampled_from(["ns/a", "ns/b"]),
        st.sampled_from(["uid-0", "uid-2"]),
        st.sampled_from([None, EARLIER, NOW, LATER]),
        st.booleans(),
    ),
    max_size=3,
).map(tuple)
STATES = st.sampled_from([None, *BootstrapState])
BACKUPS = st.sampled_from(
    [None, BACKUP, replace(BACKUP, is_served=False), replace(BACKUP, status=BackupStatus())]
)


def is_newer(other: LoginHolder, state: BootstrapState | None) -> bool:
    if other.restored_at is None:
        return False
    has_copy = state in (BootstrapState.RESTORING, BootstrapState.RESTORED)
    return not has_copy or (other.restored_at, other.uid) > (NOW, "uid-1")


@given(
    STATES,
    st.sampled_from([{}, SPEC, FENCED]),
    BACKUPS,
    HOLDERS,
    st.booleans(),
    st.sampled_from([None, facts().pvc]),
)
def test_two_sessions_with_one_login_never_run_at_once(
    state: BootstrapState | None,
    spec: dict[str, Any],
    backup: NamedBackup | None,
    holders: tuple[LoginHolder, ...],
    valid: bool,
    claim: Any,
) -> None:
    status = (VALID if valid else Status()).model_copy(
        update={"bootstrap": None if state is None else bootstrap(state)}
    )
    seen = facts(pod=None, pvc=claim, backup=backup, login_holders=holders)
    result = plan(session(status, **spec), seen, SETTINGS)
    for create in of(CreatePod, result):
        if create.restore is not None:
            assert status.bootstrap == bootstrap(), "others can see it already"
            assert all(holder.is_stopped for holder in holders)
            assert not any(is_newer(holder, state) for holder in holders)
            assert backup is not None
            assert backup.status.phase is BackupPhase.COMPLETED
            assert backup.is_served or spec is FENCED
            assert not valid, "never onto a login"
        else:
            assert not any(is_newer(holder, state) for holder in holders)
            if state in (BootstrapState.RESTORING, BootstrapState.RESTORED) and spec:
                assert all(holder.is_stopped for holder in holders)
    again = plan(session(result.status, **spec), seen, SETTINGS)
    if result.status.bootstrap == status.bootstrap:
        assert again.status == result.status, "the same facts give the same status"


# --- several that restore at once -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "yields"),
    [
        (replace(NEWER, restored_at=NOW, uid="uid-2"), True),
        (replace(NEWER, restored_at=NOW, uid="uid-0"), False),
        (replace(NEWER, restored_at=LATER, uid="uid-0"), True),
        (replace(NEWER, restored_at=EARLIER), False),
    ],
)
def test_of_several_the_latest_wins_and_of_the_same_second_one_all_the_same(
    other: LoginHolder, yields: bool
) -> None:
    result = begin(BEGUN, login_holders=(other,))
    assert bool(creates(result)) is not yields
    if yields:
        assert condition(result, ConditionType.READY) == ("False", Reason.LOGIN_MOVED)
        running = plan(
            session(BEGUN, **SPEC), facts(backup=BACKUP, login_holders=(other,)), SETTINGS
        )
        assert [delete.reason for delete in of(DeletePod, running)] == [Reason.LOGIN_MOVED]


def test_one_that_has_yielded_writes_that_it_does_not_before_it_starts() -> None:
    yielded = begin(BEGUN, login_holders=(NEWER,))
    first = begin(yielded.status)
    assert creates(first) == []
    assert condition(first, ConditionType.READY) == ("False", Reason.VOLUME_RESTORING)
    assert first.requeue_after == timedelta(0)
    assert len(creates(begin(first.status))) == 2


def test_whoever_restores_after_another_one_is_later_whatever_the_clocks_say() -> None:
    ahead = replace(STOPPED, restored_at=LATER)
    began = begin(login_holders=(ahead,)).status.bootstrap
    assert began is not None
    assert began.at == LATER + timedelta(seconds=1)


# --- what a claim notes ---------------------------------------------------------------------------

NOTE = "wasession.dev/login-id"


def repairs(result: Plan) -> list[Any]:
    return [repair.annotations.get(NOTE, "") for repair in of(RepairPvc, result)]


def noting(login: str | None) -> Any:
    claim = facts().pvc
    assert claim is not None
    annotations = claim["metadata"]["annotations"] | ({} if login is None else {NOTE: login})
    return {**claim, "metadata": {**claim["metadata"], "annotations": annotations}}


KNOWN = VALID.model_copy(update={"login_id": LOGIN})
LINKED = report(session_valid=True, is_authenticated=True, login_id=LOGIN)
ENDED = report(Phase.LOGGED_OUT, session_valid=False, reason="LoggedOutByPhone")


@pytest.mark.parametrize(
    ("status", "told", "noted", "expected"),
    [
        (KNOWN, LINKED, None, [LOGIN]),
        (KNOWN, LINKED, LOGIN, []),
        (KNOWN, LINKED, "edited", [LOGIN]),
        (KNOWN, None, None, [LOGIN]),
        (Status(), None, LOGIN, []),
        (Status(), LINKED, None, []),
        (KNOWN, ENDED, LOGIN, [None]),
        (Status(), ENDED, None, []),
    ],
)
def test_a_claim_notes_the_login_that_the_status_has(
    status: Status, told: Any, noted: str | None, expected: list[str | None]
) -> None:
    seen = facts(pvc=noting(noted), report=told, pod=None if told is None else facts().pod)
    result = plan(session(status), seen, SETTINGS)
    assert repairs(result) == expected
    if status.login_id is None and told is LINKED:
        assert result.requeue_after is not None
        assert repairs(plan(session(result.status), seen, SETTINGS)) == [LOGIN]


def test_who_is_deleted_leaves_a_note() -> None:
    gone = facts(pvc=noting(None), pod=None, report=None)
    deleted = replace(session(KNOWN), deleted_at=NOW, finalizers=("wasession.dev/session",))
    assert repairs(plan(deleted, gone, SETTINGS)) == [LOGIN]


def test_a_claim_that_is_made_for_a_backup_notes_it_from_the_start() -> None:
    [create] = of(CreatePvc, begin(BEGUN))
    assert create.restore is not None
    assert create.restore.login_id == LOGIN


def test_a_volume_that_was_taken_over_waits_until_others_with_its_login_have_stopped() -> None:
    linked = replace(STOPPED, restored_at=None)
    for holder, starts in ((RUNNING, False), (linked, True)):
        seen = facts(pod=None, pvc=noting(LOGIN), login_holders=(holder,))
        result = plan(session(Status()), seen, SETTINGS)
        assert bool(of(CreatePod, result)) is starts
