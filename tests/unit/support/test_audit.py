"""How the API servers' audit log is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.cluster import audit
from support.cluster.audit import Request

ACCOUNT = "system:serviceaccount:system:operator"


def event(user: str, verb: str, target: dict[str, str], decision: str, **more: Any) -> str:
    annotations = {"authorization.k8s.io/decision": decision}
    logged = {"user": {"username": user}, "verb": verb, "objectRef": target}
    return json.dumps({"kind": "Event", **logged, "annotations": annotations, **more})


def test_requests_in_the_order_of_the_log(tmp_path: Path) -> None:
    session = {"apiGroup": "wasession.dev", "resource": "whatsappsessions", "namespace": "a"}
    events = [
        event(ACCOUNT, "list", {"resource": "pods", "apiVersion": "v1"}, "allow"),
        event(ACCOUNT, "patch", session | {"name": "s", "subresource": "status"}, "forbid"),
    ]
    (tmp_path / audit.LOG).write_text("".join(f"{line}\n" for line in events))
    pods, status = audit.requests(tmp_path)
    assert pods == Request(ACCOUNT, "list", "", "pods", "", "", "", "allow")
    assert pods.full_resource == "pods"
    group, plural = "wasession.dev", "whatsappsessions"
    assert status == Request(ACCOUNT, "patch", group, plural, "status", "a", "s", "forbid")
    assert status.full_resource == "whatsappsessions/status"


def test_the_user_is_the_one_with_whose_rights_it_was_made(tmp_path: Path) -> None:
    impersonated = {"impersonatedUser": {"username": ACCOUNT}}
    line = event("operators", "get", {"resource": "pods"}, "allow", **impersonated)
    (tmp_path / audit.LOG).write_text(f"{line}\n")
    assert [request.user for request in audit.requests(tmp_path)] == [ACCOUNT]


def test_only_what_was_asked_for_is_logged(tmp_path: Path) -> None:
    policy_file, log = audit.arguments(tmp_path, users=("u",), groups=("g",))
    assert log == f"--audit-log-path={tmp_path / audit.LOG}"
    path = Path(policy_file.removeprefix("--audit-policy-file="))
    rules = json.loads(path.read_text())["rules"]
    logged = [rule for rule in rules if rule["level"] != "None"]
    assert logged == [
        {"level": "Metadata", "users": ["u"]},
        {"level": "Metadata", "userGroups": ["g"]},
    ]
    assert rules[-1] == {"level": "None"}
