"""What kopf calls: the login, and the watch events of sessions."""

from __future__ import annotations

from typing import Any

import kopf
from wasession_api.v1alpha1 import GROUP, PLURAL, VERSION

from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.session_watch import Connections

SESSIONS = (GROUP, VERSION, PLURAL)


def registry_for(cache: ClusterCache) -> kopf.OperatorRegistry:
    """Return a registry with the handlers."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(memo: Connections, **arguments: Any) -> kopf.AiohttpSession | None:
        info = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )
        return None if info is None else memo.open(info)

    @kopf.on.event(*SESSIONS, id="session", registry=registry)
    async def session_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        cache.session_event(type, dict(body))

    return registry
