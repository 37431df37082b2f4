"""A session's share of a rolling update: when it is over, and when it stops the others."""

from __future__ import annotations

from datetime import timedelta

from wasession_api import names, restoration
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Status, UpdateStatus

from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.manifests import annotations_of, is_of_template
from wasession_operator.plan.results import PodResult, Step, UpdateResult, report_problem
from wasession_operator.settings import Settings

RECOVERY_TIMEOUT = timedelta(
    minutes=10
)  # from the end of the old pod until the session is Ready again
# The sessions that wait for each other: those of a class, or those of an owner in a namespace.
Scope = tuple[str, ...]
HALTED = (
    "The session was Ready before its update and has not recovered. The rollout is halted until it "
    "is Ready, or until the update is accepted: "
    "kubectl annotate wasession {name} {annotation}={uid}"
)

CLASS_HALTED = (
    "The session was Ready before its update and has not recovered. The rollout of its class is "
    "halted: kubectl wasession rollout status {name}"
)
# Why kubelet cannot run a pod although it has tried.
BROKEN = {
    Reason.CRASH_LOOP_BACK_OFF,
    Reason.IMAGE_PULL_BACK_OFF,
    Reason.OOM_KILLED,
    Reason.CREATE_CONTAINER_CONFIG_ERROR,
    Reason.CREATE_CONTAINER_ERROR,
    Reason.RUN_CONTAINER_ERROR,
}


def is_updating(status: Status) -> bool:
    """Return whether the pod was replaced for a changed template, and that is not over."""
    return status.update is not None and not status.update.done


def update_scope(
    session: Session,
    pod: Manifest | None,
    report: Report | None,
    status: Status,
    template: str,
) -> Scope:
    """Return the scope in which the session is updated.

    A change of the class or of the operator is rolled out to the sessions of a class one by one.
    What an owner changes concerns nobody but the owner: a session that does not recover from that
    must not halt the rollout of others.
    """
    if is_updating(status):
        own = status.update is not None and status.update.own
    else:
        own = pod is not None and _is_own(session, pod, report, template)
    if own:
        return "owner", session.namespace, session.spec.owner or ""
    return "class", session.spec.class_name or ""


def _is_own(session: Session, pod: Manifest, report: Report | None, template: str) -> bool:
    """Return whether the session's own spec has changed since its pod was created.

    The same goes for the Secret with its proxy, which the template does not contain; the content of
    the CA bundle is its class's.
    """
    noted = annotations_of(pod)
    if noted.get(names.ANNOTATION_OWN_SPEC) not in (None, session.own_spec):
        return True
    if Reason.CA_BUNDLE_CHANGED in changed_files(session, report):
        return False
    return is_of_template(session, pod, template)


def changed_files(session: Session, report: Report | None) -> set[Reason]:
    """Return the warnings of a pod whose browser still uses a proxy or CA bundle that has changed.

    A pod that has been given no such file cannot know that it has changed.
    """
    given = {
        Reason.PROXY_CHANGED: session.spec_of_pod.browser.proxy_secret_ref,
        Reason.CA_BUNDLE_CHANGED: session.spec_of_pod.ca_bundle,
    }
    warned = {warning.reason for warning in report.warnings} if report is not None else set()
    return {reason for reason, file in given.items() if file is not None and reason in warned}


def plan_update(session: Session, facts: Facts, settings: Settings, pod: PodResult) -> UpdateResult:
    """Follow an update until the session is as well as it was before.

    A session that was Ready has to be Ready again, with a valid login, for some time: WhatsApp may
    end a login some seconds after a browser that it does not like has opened it. Later, the update
    still notes whether the session is well, for the rollout that the update is part of.
    """
    update = session.status.update
    if pod.finding.reason == Reason.TEMPLATE_CHANGED:
        return UpdateResult(_begin(session, facts))
    if update is None:
        return UpdateResult(update)
    if update.done:
        if session.revision is None:
            return UpdateResult(update)
        failed = not update.own and _is_hurt(facts, pod, update)
        return UpdateResult(update.model_copy(update={"failed": failed}))
    remaining = _remaining(session, facts, settings, pod, update)
    if remaining is not None and remaining <= timedelta(0):
        return UpdateResult(update.model_copy(update={"done": True, "failed": False}))
    hurt = session.revision is not None and _is_hurt(facts, pod, update)
    failed = remaining is None and (hurt or (update.was_ready and _has_failed(facts, pod, update)))
    update = update.model_copy(update={"failed": failed})
    if not failed:
        recheck = remaining if remaining is not None else update.at + RECOVERY_TIMEOUT - facts.now
        return UpdateResult(update, Step(requeue_after=max(recheck, timedelta(seconds=1))))
    message = _halted(session, facts, update)
    return UpdateResult(update, report_problem(Reason.ROLLOUT_HALTED, message))


def _begin(session: Session, facts: Facts) -> UpdateStatus | None:
    """Return the record of an update that begins, or has begun."""
    status, update = session.status, session.status.update
    begun = status.condition(ConditionType.POD_READY)
    if is_updating(status) and begun is not None and begun.reason == Reason.TEMPLATE_CHANGED:
        return update
    reported = facts.report.proven_validity if facts.report is not None else None
    valid = bool(status.session_valid if reported is None else reported)
    was_ready = status.phase is Phase.READY and valid
    was_ready = was_ready and not (session.revision is not None and _is_deaf(facts))
    own = facts.pod is not None and _is_own(session, facts.pod, facts.report, facts.template)
    if update is not None and not update.done:
        # A login that is lost does not come back by an update.
        was_ready = was_ready or (update.was_ready and valid)
        own = own or update.own  # one that has not worked out is still that
    at = facts.now.replace(microsecond=0)
    return UpdateStatus(
        at=at, revision=session.revision, was_ready=was_ready, was_valid=valid, own=own
    )


def _remaining(
    session: Session, facts: Facts, settings: Settings, pod: PodResult, update: UpdateStatus
) -> timedelta | None:
    """Return how long the session still has to stay as it is; None while it is not well."""
    uid = facts.pod["metadata"]["uid"] if facts.pod is not None else None
    accepted = session.annotations.get(names.ANNOTATION_ACCEPT_UPDATE)
    if session.spec.suspend or (uid is not None and accepted == uid):
        return timedelta(0)
    rolls_out = session.revision is not None
    if rolls_out and not update.was_ready:
        if _is_hurt(facts, pod, update):
            return None
        if _has_failed(facts, pod, update):
            return timedelta(0)  # as before
    if not pod.finding.ok or facts.report is None:
        return None
    if not update.was_ready:
        return timedelta(0)
    if pod.phase is not Phase.READY or not facts.report.session_valid:
        return None
    if rolls_out and _is_deaf(facts):
        return None
    ready = session.status.condition(ConditionType.READY)
    since = ready.last_transition_time if ready and ready.status == "True" else facts.now
    return since + settings.update_min_ready - facts.now


def _is_deaf(facts: Facts) -> bool:
    """Return whether the session does not hear what messages arrive."""
    warnings = facts.report.warnings if facts.report is not None else ()
    return any(warning.reason == Reason.MESSAGES_NOT_HEARD for warning in warnings)


def _is_hurt(facts: Facts, pod: PodResult, update: UpdateStatus) -> bool:
    """Return whether the session has lost its login, or does what no update may cause."""
    report = facts.report if pod.finding.ok else None
    if report is not None and update.was_valid and report.proven_validity is False:
        return True
    if not update.was_ready:
        return False
    ended = report is not None and pod.phase in restoration.DEAD_ENDS
    crashing = any(problem.reason in BROKEN for problem in pod.step.problems)
    return ended or crashing or (report is not None and _is_deaf(facts))


def _has_failed(facts: Facts, pod: PodResult, update: UpdateStatus) -> bool:
    """Return whether the session does not become Ready by itself."""
    ended = facts.report is not None and pod.phase in restoration.DEAD_ENDS
    return ended or bool(pod.step.problems) or facts.now >= update.at + RECOVERY_TIMEOUT


def _halted(session: Session, facts: Facts, update: UpdateStatus) -> str:
    if session.revision is not None and not update.own:
        return CLASS_HALTED.format(name=session.spec.class_name)
    uid = facts.pod["metadata"]["uid"] if facts.pod is not None else "UID"
    annotation = names.ANNOTATION_ACCEPT_UPDATE
    return HALTED.format(name=session.name, annotation=annotation, uid=uid)
