"""Sessions that sleep while nobody uses them: their pod is stopped, WhatsApp keeps what comes.

A session falls asleep when it is idle, or when its schedule says so, but never with something left
to deliver. It wakes on request, by schedule, and after a while in any case.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cronsim import CronSim, CronSimError
from wasession_api import names
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import HibernationStatus, Phase, Reason, RequestStatus
from wasession_api.v1alpha1.spec import SHORTEST_IDLE, Hibernation, HibernationSchedule

from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.logout import pending_request
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.plan.results import HibernationResult, Step, report_problem
from wasession_operator.plan.rollout import is_updating

WAKING_RECHECK = timedelta(seconds=1)
FOREVER = datetime.max.replace(tzinfo=UTC)
INVALID = "spec.hibernation.schedule.{field}: {error}; the session does not sleep by schedule."


def is_asleep(session: Session, now: datetime) -> bool:
    """Return whether a session without a pod stays without one for now."""
    if session.status.hibernation is None:
        return False
    return plan_hibernation(session, Facts(now)).is_asleep


def plan_hibernation(session: Session, facts: Facts) -> HibernationResult:
    """Decide whether the session sleeps."""
    wake, problem = _request(session, facts), _problem(session.spec.hibernation)
    sleep = session.status.hibernation
    if session.spec.suspend or pending_request(session, facts.report) is not None:
        return HibernationResult(None, wake, problem)  # a logout needs the pod
    if sleep is None:
        return _awake(session, facts, wake, problem)
    is_asked = wake is not None and not wake.done
    wakes_at = min(sleep.wake_at, _next(session.spec.hibernation.schedule, "wake", sleep.since))
    if is_asked or facts.now >= wakes_at or not _is_wanted(session.spec.hibernation):
        # Its pod may be Ready before the status says that it is awake, and reports nothing then.
        again = Step(requeue_after=WAKING_RECHECK) if is_asked and _is_ready(facts) else Step()
        return HibernationResult(None, wake, problem + again)
    return HibernationResult(sleep, wake, problem + Step(requeue_after=wakes_at - facts.now))


def _awake(
    session: Session, facts: Facts, wake: RequestStatus | None, step: Step
) -> HibernationResult:
    report, hibernation = _present_report(facts), session.spec.hibernation
    is_awaited = wake is not None and not wake.done
    if not _is_wanted(hibernation) or is_awaited or report is None or report.idle_since is None:
        return HibernationResult(None, wake, step)
    is_settled = report.phase is Phase.READY and bool(report.session_valid)
    is_busy = is_updating(session.status) or facts.backup_running
    if not is_settled or is_busy or facts.class_violation is not None:
        return HibernationResult(None, wake, step)  # it could not, or should not, start again
    due = _falls_asleep_at(hibernation, report.idle_since, facts.now)
    if due is None:
        return HibernationResult(None, wake, step)
    if due > facts.now:
        return HibernationResult(None, wake, step + Step(requeue_after=due - facts.now))
    now = facts.now.replace(microsecond=0)
    sleep = HibernationStatus(since=now, wake_at=now + hibernation.wake_every)
    return HibernationResult(sleep, wake, step)


def _present_report(facts: Facts) -> Report | None:
    """Return the report of a pod that is to stay: one that ends proves nothing of the next."""
    stays = facts.pod is not None and not is_terminating(facts.pod)
    return facts.report if stays else None


def _is_ready(facts: Facts) -> bool:
    report = _present_report(facts)
    return report is not None and report.phase is Phase.READY


def _is_wanted(hibernation: Hibernation) -> bool:
    return hibernation.after_idle is not None or hibernation.schedule is not None


def _falls_asleep_at(
    hibernation: Hibernation, idle_since: datetime, now: datetime
) -> datetime | None:
    """Return when the session sleeps if it stays idle: in the past, it does now."""
    times = []
    if hibernation.after_idle is not None:
        times.append(idle_since + hibernation.after_idle)
    schedule = hibernation.schedule
    if schedule is not None and _problem(hibernation) == Step():
        is_night = _next(schedule, "wake", now) < _next(schedule, "sleep", now)
        times.append(idle_since + SHORTEST_IDLE if is_night else _next(schedule, "sleep", now))
    return min(times, default=None)


def _next(schedule: HibernationSchedule | None, field: str, after: datetime) -> datetime:
    """Return the next time of a schedule; the end of time if it has none, or is invalid."""
    if schedule is None:
        return FOREVER
    try:
        return _following(getattr(schedule, field), after.replace(second=0, microsecond=0))
    except CronSimError:
        return FOREVER


@lru_cache(maxsize=1024)
def _following(expression: str, after: datetime) -> datetime:
    """Return the first time of a cron expression after a whole minute; raise ``CronSimError``."""
    return next(CronSim(expression, after), FOREVER)


def _problem(hibernation: Hibernation) -> Step:
    """Report a schedule that says nothing, or nonsense."""
    schedule = hibernation.schedule
    if schedule is None:
        return Step()
    for field in ("sleep", "wake"):
        try:
            _following(getattr(schedule, field), datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            message = INVALID.format(field=field, error=error)
            return report_problem(Reason.INVALID_SPEC, message)
    return Step()


def _request(session: Session, facts: Facts) -> RequestStatus | None:
    """Return the record of the latest wake-up that an annotation requests.

    It is done when the session is Ready; one for a session that is awake, at once.
    """
    known, asked = session.status.wake, session.annotations.get(names.ANNOTATION_WAKE)
    is_awake = _is_ready(facts) and session.status.hibernation is None
    if asked is not None and (known is None or known.request != asked):
        return RequestStatus(request=asked, at=facts.now.replace(microsecond=0), done=is_awake)
    if known is not None and not known.done and is_awake:
        return known.model_copy(update={"done": True})
    return known
