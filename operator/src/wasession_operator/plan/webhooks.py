"""The session's webhooks: its pod is told, without a restart, and reports how they are doing."""

from __future__ import annotations

from collections.abc import Sequence

from wasession_api.session_pod.report import Report
from wasession_api.session_pod.webhooks import Configuration
from wasession_api.v1alpha1 import DeliveryState, DeliveryStatus, Reason

from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.plan.actions import ConfigureWebhooks
from wasession_operator.plan.facts import Facts, Session
from wasession_operator.plan.results import Finding, Step, attempt, report_problem

# The worst first: of several webhooks, the condition shows that of the worst.
REASONS = {
    DeliveryState.FAILING: Reason.WEBHOOK_FAILING,
    DeliveryState.GONE: Reason.WEBHOOK_GONE,
    DeliveryState.PAUSED: Reason.WEBHOOK_PAUSED,
}
UNSUPPORTED = "The session image knows no webhooks: nothing is delivered."


def configuration_of(spec: EffectiveSpec) -> Configuration:
    """Return what the session's pod is to deliver, and where it may."""
    return Configuration.of(spec.webhooks, spec.webhook_policy)


def plan_webhooks(session: Session, facts: Facts) -> Step:
    """Tell the pod its webhooks if it has others. It keeps them across its restarts."""
    report, wanted = facts.report, configuration_of(session.spec)
    if report is None or report.webhooks in (None, wanted.revision):
        return _report_unsupported(report, wanted) + _report_failing(report)
    return attempt(ConfigureWebhooks(wanted), facts)


def _report_unsupported(report: Report | None, wanted: Configuration) -> Step:
    if report is None or not wanted.webhooks or not _is_old(report):
        return Step()
    return report_problem(Reason.WEBHOOKS_NOT_ACCEPTED, UNSUPPORTED)


def _is_old(report: Report) -> bool:
    """Return whether the pod has read its volume and still has no configuration."""
    return report.webhooks is None and report.session_valid is not None


def _report_failing(report: Report | None) -> Step:
    finding = None if report is None else delivering(report.deliveries)
    if finding is None or finding.ok or finding.reason == Reason.WEBHOOK_PAUSED:
        return Step()
    return report_problem(finding.reason, finding.message)


def delivering(deliveries: Sequence[DeliveryStatus]) -> Finding | None:
    """Return the condition Delivering; None without webhooks."""
    if not deliveries:
        return None
    for state, reason in REASONS.items():
        those = [one for one in deliveries if one.state is state]
        if those:
            named = ", ".join(
                f"{one.name} ({one.error})" if one.error else one.name for one in those
            )
            return Finding(False, reason, MESSAGES[state].format(named))
    return Finding(True, Reason.AS_EXPECTED)


MESSAGES = {
    DeliveryState.FAILING: "Webhooks that fail; their events wait and are tried again: {}.",
    DeliveryState.GONE: (
        "Webhooks whose endpoint wants no more events (410): {}. Their events wait until the "
        "webhook is changed or resumed."
    ),
    DeliveryState.PAUSED: "Webhooks that are paused; their events wait: {}.",
}
