"""Flux's health checks of examples/flux, evaluated as Flux does: by cel-go, in the API server."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import yaml
from integration.operator.conftest import eventually
from support.fakes.api import Api, ApiError, Manifest, path
from support.fakes.world import Environment
from support.testbed import ROOT
from wasession_api.v1alpha1 import API_VERSION, KIND, PLURAL, ConditionType

NAME = "gitops"
POLICIES = "/apis/admissionregistration.k8s.io/v1"
EXAMPLE = yaml.safe_load((ROOT / "examples/flux/sessions.yaml").read_text())


def policy() -> Manifest:
    """Return a policy that refuses each status, with the health that Flux would find."""
    [check] = EXAMPLE["spec"]["healthCheckExprs"]
    assert (check["apiVersion"], check["kind"]) == (API_VERSION, KIND)
    # Flux gives an expression the fields of the object, the API server the object.
    in_progress, failed, current = (
        re.sub(r"(?<!\.)\b(status|metadata)(?=\.)", r"object.\1", check[name])
        for name in ("inProgress", "failed", "current")
    )
    return {
        "metadata": {"name": NAME},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAME}},
                "resourceRules": [
                    {
                        "apiGroups": ["wasession.dev"],
                        "apiVersions": ["v1alpha1"],
                        "operations": ["UPDATE"],
                        "resources": [f"{PLURAL}/status"],
                    }
                ],
            },
            "validations": [
                {
                    "expression": "false",
                    # In the order in which Flux evaluates them.
                    "messageExpression": f"'Flux: ' + ({in_progress} ? 'in progress' : "
                    f"{failed} ? 'failed' : {current} ? 'current' : 'unknown')",
                }
            ],
        },
    }


@pytest.fixture(scope="module")
async def api(environment: Environment) -> AsyncIterator[Api]:
    """The administrator's client, with a session; no operator runs."""
    api = environment.api
    await api.create("namespaces", {"metadata": {"name": NAME}})
    session = {"metadata": {"name": "sales", "namespace": NAME}, "spec": {}}
    await api.create(PLURAL, {"apiVersion": API_VERSION, "kind": KIND, **session})
    binding = {"policyName": NAME, "validationActions": ["Deny"]}
    await api.call("POST", f"{POLICIES}/validatingadmissionpolicies", policy())
    await api.call(
        "POST",
        f"{POLICIES}/validatingadmissionpolicybindings",
        {"metadata": {"name": NAME}, "spec": binding},
    )

    async def is_judged() -> bool:
        return await health(api, {}) is not None

    await eventually(is_judged, patience=60)
    yield api
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        await api.call("DELETE", f"{POLICIES}/{plural}/{NAME}")
    await api.delete(PLURAL, NAME, "sales")
    await api.delete("namespaces", None, NAME)


async def health(api: Api, status: Any) -> str | None:
    """Return what Flux would find for a session with this status; None without the policy."""
    where = path(PLURAL, NAME, "sales", "status")
    try:
        patch = {"status": status}
        await api.call("PATCH", f"{where}?dryRun=All", patch, "application/merge-patch+json")
    except ApiError as error:
        message = json.loads(str(error).partition(": ")[2])["message"]
        return str(message.rpartition("Flux: ")[2])
    return None


def of_session(phase: str, conditions: Mapping[str, str], generation: int = 1) -> Manifest:
    """Return the status of a session with these conditions and their statuses."""
    common = {"reason": "Because", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    found = [{"type": kind, "status": truth, **common} for kind, truth in conditions.items()]
    return {"phase": phase, "observedGeneration": generation, "conditions": found}


READY: dict[str, str] = {ConditionType.READY: "True"}
WAITING: dict[str, str] = {ConditionType.READY: "False"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (of_session("Ready", READY), "current"),
        (of_session("Authenticating", WAITING), "current"),
        (of_session("Suspended", WAITING), "current"),
        (of_session("Starting", {**WAITING, ConditionType.RECONCILING: "True"}), "in progress"),
        (of_session("Failed", {**WAITING, ConditionType.STALLED: "True"}), "failed"),
        (of_session("Ready", READY, generation=2), "in progress"),
        ({"phase": "Ready"}, "in progress"),
        ({"phase": "Ready", "observedGeneration": 1}, "unknown"),
    ],
)
async def test_flux_waits_for_the_operator_and_not_for_people(
    api: Api, status: Manifest, expected: str
) -> None:
    assert await health(api, status) == expected
