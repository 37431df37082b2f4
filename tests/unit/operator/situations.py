"""Sessions, objects and reports to build the plan's facts from."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from wasession_api import names
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, Phase, Status, VolumeLoss
from wasession_operator import objects
from wasession_operator import plan as planning
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.master_key import MasterKey
from wasession_operator.plan import Facts, Node, Plan, Session
from wasession_operator.plan.facts import AppliedSecret
from wasession_operator.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Settings(session_image="session-pod:1")


def session(
    status: Status | None = None, *, deleting: bool = False, uid: str = "uid-1", **spec: Any
) -> Session:
    annotations = {
        f"wasession.dev/{name}": value for name, value in spec.pop("annotations", {}).items()
    }
    deleted_at = NOW if deleting else None
    finalizers = (names.FINALIZER,)
    return Session(
        "ns",
        "sales",
        uid,
        3,
        EffectiveSpec.model_validate(spec),
        status or Status(),
        deleted_at,
        annotations,
        finalizers,
    )


def pvc(phase: str = "Bound", **changes: Any) -> dict[str, Any]:
    claim = objects.make_pvc(
        "ns", "sales", "uid-1", EffectiveSpec.model_validate(changes.pop("spec", {}))
    )
    claim["status"] = {"phase": phase}
    claim["metadata"] |= {"uid": "pvc-uid", **changes}
    return claim


def pod(
    ready: bool = True,
    phase: str = "Running",
    spec: dict[str, Any] | None = None,
    restoring: bool = True,
    **status: Any,
) -> dict[str, Any]:
    obj = objects.make_pod(
        "ns",
        "sales",
        "uid-1",
        EffectiveSpec.model_validate(spec or {}),
        SETTINGS,
        restoring=restoring,
        token_id="t1",
    )
    obj["metadata"] |= {"uid": "pod-uid", "creationTimestamp": NOW.isoformat()}
    obj["spec"]["nodeName"] = "node-1"
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False"},
        *status.pop("conditions", []),
    ]
    obj["status"] = {"phase": phase, "conditions": conditions, **status}
    return obj


def master_key() -> MasterKey:
    """Return a key; its file does not exist any more."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b64encode(bytes(32)))
        file.flush()
        return MasterKey(Path(file.name))


def terminating(obj: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the object, by default the pod, with a deletion under way."""
    obj = obj or pod()
    return {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2026-01-02T03:04:00Z"}}


def owned_by(obj: dict[str, Any], kind: str, name: str, uid: str = "other") -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": True}
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [owner]}}


def silent(minutes: float = 0, **changes: Any) -> Node:
    """Return the pod's node, not Ready for ``minutes``."""
    return Node("node-1", not_ready_since=NOW - timedelta(minutes=minutes), **changes)


def waiting(reason: str, message: str = "", **last: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": "session",
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": last,
        }
    ]


def unschedulable(since: timedelta) -> dict[str, str]:
    at = (NOW - since).isoformat()
    return {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/2 nodes",
        "lastTransitionTime": at,
    }


def report(phase: Phase = Phase.READY, **fields: Any) -> Report:
    defaults: dict[str, Any] = {
        "client_id": "sales",
        "started_at": NOW,
        "seq": 1,
        "reason": "Connected",
        "phase": phase,
        "session_valid": False,
    }
    return Report(**defaults | fields)


def template_of(session: Session, settings: Settings = SETTINGS) -> str:
    """Return the template hash that the session's pod should have."""
    return objects.desired_hash(
        session.namespace, session.name, session.uid, session.spec, settings
    )


def plan(session: Session, facts: Facts, settings: Settings) -> Plan:
    """Return the next step, of facts with the session's template."""
    return planning.plan(session, replace(facts, template=template_of(session, settings)), settings)


def facts(**changes: Any) -> Facts:
    """Return the facts of a running session. The API server accepts any pod of it."""
    whole = Facts(
        now=NOW,
        pvc=pvc(),
        pod=pod(),
        token_ids=("t1", "t2"),
        secret_applied=AppliedSecret("t1", NOW),
        accepted_template=mock.ANY,
    )
    return replace(whole, **changes)


def condition(result: Plan, kind: ConditionType) -> tuple[str, str]:
    condition = {c.type: c for c in result.status.conditions}[kind]
    return condition.status, condition.reason


def of(kind: type[Any], result: Plan) -> list[Any]:
    return [action for action in result.actions if isinstance(action, kind)]


def event_reasons(result: Plan) -> list[str]:
    """Return the reasons of the Events."""
    return [event.reason for event in result.events]


def message(result: Plan, kind: ConditionType) -> str:
    return {c.type: c.message for c in result.status.conditions}[kind]


LOSS = VolumeLoss(nonce="n1", pvc_uid="pvc-uid", at=NOW)
VALID = Status(
    session_valid=True,
    pvc_name="wasession-sales",
    pvc_uid="pvc-uid",
    pod_uid="pod-uid",
    last_connected=NOW,
)
LOST = VALID.model_copy(update={"volume_loss": LOSS})
