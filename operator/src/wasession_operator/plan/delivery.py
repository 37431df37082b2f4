"""The session's webhooks and sinks: its pod is told, without a restart, and reports on them."""

from __future__ import annotations

from collections.abc import Sequence

from wasession_api.session_pod.delivery import Configuration
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import DeliveryState, DeliveryStatus, Reason

from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.plan.actions import ConfigureDelivery
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.results import Finding, Step, attempt, report_problem

# The worst first: of several, the condition shows that of the worst.
PROBLEMS = {
    DeliveryState.FAILING: (
        Reason.DELIVERY_FAILING,
        "Webhooks or sinks that fail; their events wait and are tried again: {}.",
    ),
    DeliveryState.GONE: (
        Reason.DELIVERY_GONE,
        "Webhooks whose endpoint wants no more events (410): {}. Their events wait until the "
        "webhook is changed or resumed.",
    ),
    DeliveryState.PAUSED: (
        Reason.DELIVERY_PAUSED,
        "Webhooks or sinks that are paused; their events wait: {}.",
    ),
}
UNSUPPORTED = "The session image knows no webhooks and sinks: nothing is delivered."


def configuration_of(spec: EffectiveSpec) -> Configuration:
    """Return what the session's pod is to deliver, and where it may."""
    return Configuration.of(spec.webhooks, spec.sinks, spec.delivery_policy)


def plan_delivery(session: Session, facts: Facts) -> Step:
    """Tell the pod its webhooks and sinks if it has others. It keeps them across restarts."""
    report, wanted = facts.report, configuration_of(session.spec)
    if report is None or report.delivery_revision in (None, wanted.revision):
        return _report_unsupported(report, wanted) + _report_failing(report)
    return attempt(ConfigureDelivery(wanted), facts)


def _report_unsupported(report: Report | None, wanted: Configuration) -> Step:
    if report is None or not wanted.destinations or not _is_old(report):
        return Step()
    return report_problem(Reason.DELIVERY_NOT_ACCEPTED, UNSUPPORTED)


def _is_old(report: Report) -> bool:
    """Return whether the pod has read its volume and still has no configuration."""
    return report.delivery_revision is None and report.session_valid is not None


def _report_failing(report: Report | None) -> Step:
    finding = None if report is None else delivering(report.deliveries)
    if finding is None or finding.ok or finding.reason == Reason.DELIVERY_PAUSED:
        return Step()
    return report_problem(finding.reason, finding.message)


def delivering(deliveries: Sequence[DeliveryStatus]) -> Finding | None:
    """Return the condition Delivering; None without webhooks and sinks."""
    if not deliveries:
        return None
    for state, (reason, message) in PROBLEMS.items():
        those = [one for one in deliveries if one.state is state]
        if those:
            named = ", ".join(
                f"{one.name} ({one.error})" if one.error else one.name for one in those
            )
            return Finding(False, reason, message.format(named))
    return Finding(True, Reason.AS_EXPECTED)
