"""What is done, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from unit.operator.situations import SETTINGS, session
from wasession_api.kube.client import SESSIONS, KubeClient, Rejected, Resource, Unavailable
from wasession_api.names import FINALIZER
from wasession_operator.action_executor import Effects
from wasession_operator.cluster_cache import Cluster
from wasession_operator.plan.actions import AddFinalizer, RemoveFinalizer
from wasession_operator.reconcile_state import Memory

Manifest = dict[str, Any]
KEY = ("ns", "sales")
BODY: Manifest = {
    "metadata": {"name": "sales", "namespace": "ns", "uid": "uid-1", "resourceVersion": "5"},
    "spec": {},
}
HELD: Manifest = {
    **BODY,
    "metadata": {**BODY["metadata"], "resourceVersion": "6", "finalizers": [FINALIZER]},
}


class Api:
    """An API server that answers each patch with ``answer``."""

    def __init__(self, answer: Callable[[], Manifest | None]) -> None:
        self.answer = answer
        self.patches: list[Any] = []

    async def patch(self, resource: Resource, *where: Any) -> Manifest | None:
        assert resource is SESSIONS
        self.patches.append(where[2])
        return self.answer()


def knowing(api: Api) -> tuple[Effects, Cluster]:
    cluster = Cluster(cast(KubeClient, api), [], lambda _: None, watch_nodes=False)
    cluster.session_seen(BODY)
    return Effects(SETTINGS, cast(KubeClient, api), cluster), cluster


async def test_a_finalizer_counts_as_soon_as_the_api_server_has_it() -> None:
    api = Api(lambda: HELD)
    effects, cluster = knowing(api)
    await effects.perform(session(), Memory("uid-1"), AddFinalizer(()))
    assert cluster.sessions[KEY]["metadata"]["finalizers"] == [FINALIZER]
    [patch] = api.patches
    assert patch[-1] == {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}


async def test_a_session_that_went_away_meanwhile_does_not_come_back() -> None:
    def answer() -> Manifest:
        cluster.session_gone(KEY, "uid-1")
        return HELD

    effects, cluster = knowing(Api(answer))
    await effects.perform(session(), Memory("uid-1"), AddFinalizer(()))
    assert KEY not in cluster.sessions


@pytest.mark.parametrize("action", [AddFinalizer(()), RemoveFinalizer((FINALIZER,))])
async def test_finalizers_that_somebody_else_has_changed_are_looked_at_again(
    action: AddFinalizer | RemoveFinalizer,
) -> None:
    def answer() -> Manifest:
        raise Rejected("testing path /metadata/finalizers value failed")

    effects, memory = knowing(Api(answer))[0], Memory("uid-1")
    with pytest.raises(Unavailable):
        await effects.perform(session(), memory, action)
    assert memory.refusals == {}
