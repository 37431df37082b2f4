"""kube-apiserver's audit log: which requests accounts have made, and whether they were allowed.

Only accounts that a test asks about are logged, and of their requests only the metadata, so that
the log costs next to nothing. Its format: ``audit.k8s.io/v1``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

POLICY = "audit-policy.json"
LOG = "audit.log"


class Request(NamedTuple):
    """A request for a resource; ``subresource``, ``namespace`` and ``name`` may be empty."""

    user: str
    verb: str
    api_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    decision: str  # of the authorizer: "allow" or "forbid"

    @property
    def full_resource(self) -> str:
        """The resource as a Role names it: ``pods``, ``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def arguments(
    directory: Path, *, users: tuple[str, ...] = (), groups: tuple[str, ...] = ()
) -> list[str]:
    """Return kube-apiserver's arguments that log the requests of these users and groups.

    Kubernetes' own ServiceAccounts are never among them. Writes the policy to ``directory``, where
    the log is as well.
    """
    (directory / POLICY).write_text(json.dumps(_policy(users, groups)))
    return [
        f"--audit-policy-file={directory / POLICY}",
        f"--audit-log-path={directory / LOG}",
    ]


def requests(directory: Path) -> Iterator[Request]:
    """Yield the logged requests, in the order of their completion.

    A watch appears when it starts and when it ends, any other request once. Requests that are not
    for a resource, such as ``/version``, are not logged.
    """
    with (directory / LOG).open() as log:
        for line in log:
            yield _request(json.loads(line))


def _request(event: dict[str, Any]) -> Request:
    target = event["objectRef"]
    return Request(
        user=event.get("impersonatedUser", event["user"])["username"],
        verb=event["verb"],
        api_group=target.get("apiGroup", ""),
        resource=target["resource"],
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        decision=event.get("annotations", {}).get("authorization.k8s.io/decision", ""),
    )


def _policy(users: tuple[str, ...], groups: tuple[str, ...]) -> dict[str, object]:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        # The first rule that matches decides.
        "rules": [
            {"level": "None", "nonResourceURLs": ["*"]},
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            *({"level": "Metadata", "users": [user]} for user in users),
            *({"level": "Metadata", "userGroups": [group]} for group in groups),
            {"level": "None"},
        ],
    }
