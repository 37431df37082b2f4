"""A status is written once, and not again for fields that the API server prunes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from unit.operator.situations import NOW, SETTINGS, VALID, facts, plan, report, session
from wasession_api.kube.client import Conflict, KubeClient, Rejected
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.plan import Plan
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.status_writer import StatusWriter

KEY = ("ns", "sales")


class Api:
    """An API server that has one session, and prunes a field that its CRD does not know."""

    def __init__(self, unknown: str | None = None) -> None:
        self.body: Manifest = {
            "metadata": {
                "name": "sales",
                "namespace": "ns",
                "uid": "uid-1",
                "resourceVersion": "1",
            },
            "status": {},
        }
        self.patches: list[Manifest] = []
        self.events: list[Manifest] = []
        self.unknown = unknown

    async def create(self, _resource: Any, manifest: Manifest) -> Manifest:
        self.events.append(manifest)
        return manifest | {"metadata": manifest["metadata"] | {"name": f"e-{len(self.events)}"}}

    async def get(self, *_where: Any) -> Manifest:
        return self.body

    async def patch(
        self, _resource: Any, _namespace: str, _name: str, patch: list[Manifest], _sub: str
    ) -> Manifest:
        uid, version, add = patch
        if uid["value"] != self.body["metadata"]["uid"]:
            raise Rejected("the test failed")
        if version["value"] != self.body["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        self.patches.append(add["value"])
        status = {name: value for name, value in add["value"].items() if name != self.unknown}
        if status != self.body["status"]:
            following = str(int(self.body["metadata"]["resourceVersion"]) + 1)
            self.body = {
                "metadata": {**self.body["metadata"], "resourceVersion": following},
                "status": status,
            }
        return self.body


class Handler:
    """What a cache calls."""

    def enqueue(self, key: Key) -> None:
        """Nothing."""

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        """Nothing."""

    def on_delete(self, key: Key, uid: str) -> None:
        """Nothing."""

    def on_sync(self, namespace: str | None) -> None:
        """Nothing."""

    def on_start_node(self, name: str, zone: str | None) -> None:
        """Nothing."""


def cache_of(api: Api) -> ClusterCache:
    cache = ClusterCache(cast(KubeClient, api), [], Handler(), watch_nodes=False)
    cache.upsert_session(api.body)
    return cache


async def write(
    api: Api, state: ReconcileState, result: Plan, cache: ClusterCache | None = None
) -> float | None:
    """Write as the reconciler does, by default with a watch that is up to date."""
    cache = cache or cache_of(api)
    body = cache.sessions[KEY]
    state.observe_version(body["metadata"]["resourceVersion"])
    writer = StatusWriter(cast(KubeClient, api), cache)
    wait = await writer.write(session(VALID), body, state, result, None)
    await writer.close(60)
    return wait


def ready(**fields: Any) -> Plan:
    reported = report(session_valid=True, is_authenticated=True, last_connected=NOW, **fields)
    return plan(session(VALID), facts(report=reported), SETTINGS)


async def test_an_unchanged_status_is_written_once() -> None:
    api, state = Api(), ReconcileState(KEY, "uid-1")
    for _ in range(3):
        assert await write(api, state, ready()) is None
    assert len(api.patches) == 1
    [event] = api.events
    assert (event["reason"], event["type"], event["involvedObject"]["uid"]) == (
        "Connected",
        "Normal",
        "uid-1",
    )


async def test_a_change_that_follows_at_once_is_debounced() -> None:
    api, state = Api(), ReconcileState(KEY, "uid-1")
    await write(api, state, ready())
    wait = await write(api, state, ready(whatsapp_web_version="2.3"))
    assert wait is not None
    assert 0 < wait <= 1
    assert state.differs_since is not None
    state.differs_since -= 1
    state.written_at -= 1
    assert await write(api, state, ready(whatsapp_web_version="2.3")) is None
    assert api.patches[1] == api.patches[0] | {"whatsappWebVersion": "2.3"}


async def test_a_status_does_not_land_on_a_session_of_the_same_name() -> None:
    api, state = Api(), ReconcileState(KEY, "uid-1")
    api.body["metadata"]["uid"] = "uid-2"
    with pytest.raises(Rejected):
        await write(api, state, ready())
    assert api.patches == []


async def test_the_status_of_a_session_that_has_changed_is_planned_again() -> None:
    """As it is then, even if the watch is behind."""
    api, state = Api(), ReconcileState(KEY, "uid-1")
    cache = cache_of(api)
    api.body = {**api.body, "metadata": {**api.body["metadata"], "resourceVersion": "9"}}
    wait = await write(api, state, ready(), cache)
    assert wait is not None
    assert 0 < wait < 1
    assert api.patches == []
    assert await write(api, state, ready(), cache) is None
    assert len(api.patches) == 1


async def test_a_session_that_is_changed_all_the_time_is_written_to_seldom() -> None:
    api, state = Api(), ReconcileState(KEY, "uid-1")
    waits = []
    for _ in range(12):
        cache = cache_of(api)
        version = str(int(api.body["metadata"]["resourceVersion"]) + 1)
        api.body = {**api.body, "metadata": {**api.body["metadata"], "resourceVersion": version}}
        waits.append(await write(api, state, ready(), cache))
    assert None not in waits
    assert waits == sorted(waits, key=lambda wait: wait or 0.0)
    assert 10 < (waits[-1] or 0.0) < 60
    assert await write(api, state, ready()) is None
    assert state.conflicts == 0


async def test_a_status_follows_the_last_one_before_its_watch_event() -> None:
    api, state = Api(), ReconcileState(KEY, "uid-1")
    cache = cache_of(api)
    assert await write(api, state, ready(), cache) is None
    state.written_at -= 1
    state.differs_since = -1e9
    assert await write(api, state, ready(whatsapp_web_version="2.3"), cache) is None
    assert len(api.patches) == 2


async def test_an_outdated_crd_does_not_cause_endless_writes() -> None:
    api, state = Api(unknown="pvcUID"), ReconcileState(KEY, "uid-1")
    for _ in range(5):
        await write(api, state, ready())
        state.written_at -= 1
    assert len(api.patches) == 2, "once to write it, once to see that the field is pruned"
    assert [event["reason"] for event in api.events] == ["Connected"]
