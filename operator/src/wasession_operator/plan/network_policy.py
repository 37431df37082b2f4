"""The NetworkPolicy of the session's namespace and class."""

from __future__ import annotations

from wasession_api.v1alpha1 import Reason

from wasession_operator.plan.actions import ApplyNetworkPolicy
from wasession_operator.plan.facts import Facts
from wasession_operator.plan.results import Finding, NetworkPolicyResult, attempt

IN_PLACE = Finding(True, Reason.AS_EXPECTED)
PENDING = "The NetworkPolicy of the pod is being applied."


def plan_network_policy(facts: Facts) -> NetworkPolicyResult:
    """Apply the policy; a session that may not start, but still runs, needs it as well."""
    policy = facts.network_policy
    if policy is None or policy.is_current:
        return NetworkPolicyResult(IN_PLACE)
    step = attempt(ApplyNetworkPolicy(policy.manifest), facts)
    if step.problems:
        return NetworkPolicyResult(Finding(False, *step.problems[0]), step)
    if not step.actions:  # the API server has not answered
        return NetworkPolicyResult(Finding(False, Reason.POD_PENDING, PENDING), step)
    return NetworkPolicyResult(IN_PLACE, step)
