"""The status that goes with what was found out, and what is told when it changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    AccountStatus,
    Condition,
    ConditionType,
    DisconnectKind,
    Phase,
    Reason,
    Restarts,
    Status,
    account_status,
)

from wasession_operator.plan.actions import Event
from wasession_operator.plan.conditions import Conditions
from wasession_operator.plan.draft import Draft
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import container, state
from wasession_operator.plan.pod import ending

PROGRESSING = {
    Phase.PENDING,
    Phase.STARTING,
    Phase.SYNCING,
    Phase.RESTORING,
    Phase.RECONNECTING,
    Phase.AUTHENTICATING,
}
SEEN_EVERY = timedelta(
    hours=12
)  # how much later a phone must have been seen before that alone is written
REQUESTED = {Reason.RESTART_REQUESTED, Reason.TEMPLATE_CHANGED}
DISCONNECTS = {
    DisconnectKind.LOGOUT: Reason.LOGGED_OUT_BY_PHONE,
    DisconnectKind.CONNECTION: Reason.CONNECTION_LOST,
    DisconnectKind.CONFLICT: Reason.OPENED_ELSEWHERE,
    DisconnectKind.CRASH: Reason.BROWSER_CRASHED,
    DisconnectKind.PHONE_OFFLINE: Reason.PHONE_OFFLINE,
}


def make_status(session: Session, facts: Facts, draft: Draft) -> Status:
    before, report = session.status, facts.report if draft.pod[0] else None
    status = before.model_copy()  # its parts are replaced, never changed
    status.observed_generation = session.generation
    if facts.pvc is not None:
        status.pvc_name, status.pvc_uid = (
            facts.pvc["metadata"]["name"],
            facts.pvc["metadata"].get("uid"),
        )
    _count_restarts(session, status, facts)
    if draft.given_up:
        status.session_valid = False
    if draft.keep:
        status.conditions = _kept_conditions(session, facts, draft)
        return status
    status.phase = draft.phase
    status.account_status = account_status(draft.phase)
    if draft.troubles and status.account_status is AccountStatus.ACTIVE:
        status.account_status = AccountStatus.DISCONNECTED  # it is on its way nowhere
    if report is not None:
        _take_report(before, status, report)
    else:
        status.is_authenticated = False
        status.pairing = None
        status.restored = False
    if session.deleted_at is not None and facts.report is not None:
        status.session_valid = (
            facts.report.session_valid
        )  # whether the logout at the end has been done
    if status.session_valid is None:
        status.session_valid = False
    status.conditions = _conditions(session, facts, draft, status, report)
    return status


def refused_spec(session: Session, now: datetime, message: str) -> Status:
    """The status of a session whose spec can't be read, which the CRD's own validation should have said before."""
    status = session.status.model_copy()
    status.observed_generation, status.phase = session.generation, Phase.FAILED
    status.account_status = account_status(Phase.FAILED)
    found = Conditions(session.status.conditions, session.generation, seconds(now))
    for kind in ConditionType:
        found.keep(kind)
    found.set(ConditionType.READY, False, Reason.INVALID_SPEC, message)
    found.set(ConditionType.PROGRESSING, False, Reason.INVALID_SPEC, message)
    found.set(ConditionType.DEGRADED, True, Reason.INVALID_SPEC, message)
    status.conditions = found.listed()
    return status


def make_events(before: Status, after: Status) -> list[Event]:
    """One Event for each thing that has changed and that a person would want to read."""
    events: list[Event] = []
    degraded, was = _degraded(after), _degraded(before)
    if degraded is not None and (was is None or was.reason != degraded.reason):
        events.append(Event("Warning", degraded.reason, degraded.message))
    restarts = after.restarts
    if restarts.count > before.restarts.count and restarts.reason is not None:
        kind: Literal["Normal", "Warning"] = "Normal" if restarts.reason in REQUESTED else "Warning"
        events.append(Event(kind, restarts.reason, "The pod, or its container, is started again."))
    gone = after.last_disconnect
    if gone is not None and gone != before.last_disconnect:
        events.append(
            Event("Warning", DISCONNECTS[gone.kind], f"WhatsApp was lost: {gone.reason}.")
        )
    if after.phase is before.phase:
        return events
    ready = next((c for c in after.conditions if c.type is ConditionType.READY), None)
    match after.phase:
        case Phase.READY if after.restorations > before.restorations:
            events.append(
                Event("Normal", Reason.RESTORED, "The session is restored from its stored login.")
            )
        case Phase.READY if not before.session_valid:
            events.append(
                Event("Normal", Reason.NEW_LOGIN, "A phone was linked, and its login is stored.")
            )
        case Phase.READY:
            events.append(Event("Normal", Reason.CONNECTED, "The session is ready."))
        case Phase.AUTHENTICATING if ready is not None and degraded is None:
            events.append(Event("Normal", ready.reason, ready.message))
        case Phase.SUSPENDED:
            events.append(
                Event("Normal", Reason.SUSPENDED, "The session is suspended; its volume is kept.")
            )
    return events


def is_updating(status: Status) -> bool:
    """Whether a session's pod has been replaced for a changed template, and it has not been well since."""
    if ending(status) is Reason.TEMPLATE_CHANGED:
        return True
    ready = next((c for c in status.conditions if c.type is ConditionType.READY), None)
    restarts = status.restarts
    if restarts.reason != Reason.TEMPLATE_CHANGED or restarts.last is None or ready is None:
        return False
    settled = {
        Phase.READY,
        Phase.AUTHENTICATING,
        Phase.LOGGED_OUT,
        Phase.PASSKEY_REQUIRED,
        Phase.CONFLICT,
        Phase.SUSPENDED,
    }
    return status.phase not in settled and ready.last_transition_time <= restarts.last


# --- what the report and the pod say --------------------------------------------------------------


def _count_restarts(session: Session, status: Status, facts: Facts) -> None:
    """Counts pods that are gone, and the starts of the present one's container beyond the first."""
    before, pod = session.status, facts.pod
    uid = pod["metadata"]["uid"] if pod else None
    status.pod_name = pod["metadata"]["name"] if pod else None
    status.node_name = pod["spec"].get("nodeName") if pod else None
    status.pod_uid = uid
    if before.pod_uid not in (None, uid):
        why = ending(before) or Reason.POD_DELETED
        status.restarts = status.restarts.model_copy(update={"container": 0})
        if why is not Reason.SUSPENDED and session.deleted_at is None:
            _restarted(status, 1, facts, why)
    starts = container(pod).get("restartCount", 0) if pod else 0
    if starts > status.restarts.container:
        assert pod is not None
        oom = state(pod, "terminated", "lastState").get("reason") == "OOMKilled"
        _restarted(
            status,
            starts - status.restarts.container,
            facts,
            Reason.OOM_KILLED if oom else Reason.CONTAINER_RESTARTED,
        )
        status.restarts = status.restarts.model_copy(update={"container": starts})


def _restarted(status: Status, times: int, facts: Facts, why: Reason) -> None:
    count, container_starts = status.restarts.count + times, status.restarts.container
    status.restarts = Restarts(
        count=count, last=seconds(facts.now), reason=why.value, container=container_starts
    )


def _take_report(before: Status, status: Status, report: Report) -> None:
    restored_now = report.phase is Phase.READY and report.restored
    counted = before.last_connected is not None and before.last_connected >= report.started_at
    if restored_now and not counted:
        status.restorations = before.restorations + 1
    status.restored = restored_now
    status.session_valid = report.session_valid
    status.is_authenticated = report.is_authenticated
    status.auth_state = report.auth_state
    status.pairing = report.pairing
    status.last_connected = report.last_connected or before.last_connected
    status.last_disconnect = report.last_disconnect or before.last_disconnect
    status.account = report.account or before.account
    status.whatsapp_web_version = report.whatsapp_web_version or before.whatsapp_web_version
    status.last_shutdown = report.last_shutdown or before.last_shutdown
    seen, known = report.phone_last_seen, before.phone_last_seen
    if seen is not None and (known is None or seen < known or seen - known >= SEEN_EVERY):
        status.phone_last_seen = seen


# --- conditions -----------------------------------------------------------------------------------


def _conditions(
    session: Session, facts: Facts, draft: Draft, status: Status, report: Report | None
) -> list[Condition]:
    found = Conditions(session.status.conditions, session.generation, seconds(facts.now))
    found.set(ConditionType.READY, draft.phase is Phase.READY, draft.reason, draft.message)
    found.set(ConditionType.POD_READY, *draft.pod)
    if session.deleted_at is not None:
        found.keep(ConditionType.STORAGE_READY)
    else:
        found.set(ConditionType.STORAGE_READY, *draft.storage)
    if report is not None:
        found.set(
            ConditionType.AUTHENTICATED, report.is_authenticated, report.reason, report.message
        )
    elif status.session_valid:
        found.set(ConditionType.AUTHENTICATED, "Unknown", draft.reason, draft.message)
    else:
        found.set(ConditionType.AUTHENTICATED, False, Reason.NO_LOGIN, "No phone has been linked.")
    _restored(found, draft, status, report)
    going_on = draft.phase in PROGRESSING and not draft.troubles
    if draft.update_pending and not going_on:
        found.set(ConditionType.PROGRESSING, False, Reason.UPDATE_PENDING, draft.update_pending)
    else:
        found.set(ConditionType.PROGRESSING, going_on, draft.reason, draft.message)
    found.set(ConditionType.DEGRADED, bool(draft.troubles), *_gravest(draft))
    return found.listed()


def _kept_conditions(session: Session, facts: Facts, draft: Draft) -> list[Condition]:
    """What was known still counts; only what the API server says of pod and claim is new."""
    found = Conditions(session.status.conditions, session.generation, seconds(facts.now))
    for kind in ConditionType:
        found.keep(kind)
    if facts.pod is not None:
        found.set(ConditionType.POD_READY, *draft.pod)
    found.set(ConditionType.STORAGE_READY, *draft.storage)
    return found.listed()


def _gravest(draft: Draft) -> tuple[str, str]:
    """The trouble to show: the one that explains why the session is not Ready, if any does."""
    explaining = [trouble for trouble in draft.troubles if trouble[0] == draft.reason]
    return (explaining or draft.troubles or [(Reason.AS_EXPECTED, "")])[0]


def _restored(found: Conditions, draft: Draft, status: Status, report: Report | None) -> None:
    kind = ConditionType.RESTORED
    if status.restored:
        found.set(kind, True, Reason.RESTORED, "The session came back from its stored login.")
    elif report is not None and report.reason in (Reason.RESTORATION_FAILED, Reason.LOGIN_MISSING):
        found.set(kind, False, report.reason, report.message)
    elif draft.phase is Phase.READY:
        found.set(kind, False, Reason.NEW_LOGIN, "The phone was linked since the pod's start.")
    elif draft.troubles and status.session_valid:
        found.set(kind, False, *_gravest(draft))
    elif status.session_valid:
        found.set(kind, "Unknown", draft.reason, draft.message)
    else:
        found.set(kind, False, Reason.NO_LOGIN, "There is no login to restore.")


def _degraded(status: Status) -> Condition | None:
    return next(
        (c for c in status.conditions if c.type is ConditionType.DEGRADED and c.status == "True"),
        None,
    )


def seconds(moment: datetime) -> datetime:
    """Kubernetes keeps whole seconds: a finer time would look like a change."""
    return moment.astimezone(UTC).replace(microsecond=0)
