"""What sessions hold while the API server does not let them be reconciled."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import aiohttp
import pytest
from unit.operator.situations import NOW, SETTINGS, master_key, pod, pvc
from wasession_api import names
from wasession_api.kube.client import KubeClient, Rejected, Resource
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import Revision
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.plan.parse import own_spec
from wasession_operator.reconcile import Reconciler
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.settings import Settings

KEY = ("ns", "sales")
BODY: Manifest = {
    "metadata": {"name": "sales", "namespace": "ns", "uid": "uid-1", "resourceVersion": "5"},
    "spec": {},
}

CLASS: Manifest = {
    "metadata": {
        "name": "standard",
        "uid": "uid-of-standard",
        "generation": 1,
        "annotations": {"wasession.dev/is-default-class": "true"},
    },
    "spec": {},
}


class Api:
    """An API server that creates and deletes everything, and rejects every patch."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def delete(self, _resource: Resource, _namespace: str, name: str, *_: Any) -> None:
        self.deleted.append(name)

    async def get(self, _resource: Resource, _namespace: str, _name: str, **_: Any) -> None:
        return None

    async def create(self, _resource: Resource, manifest: Manifest) -> Manifest:
        manifest["metadata"] |= {
            "uid": f"uid-of-{manifest['kind']}",
            "resourceVersion": "6",
            "creationTimestamp": NOW.isoformat(),
        }
        return manifest

    async def apply(self, _resource: Resource, manifest: Manifest) -> Manifest:
        return manifest

    async def patch(self, *_: Any) -> Manifest | None:
        raise Rejected("the status is not valid")


class Handler:
    """Ignores what the cache calls."""

    def enqueue(self, key: Key) -> None: ...

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None: ...

    def on_delete(self, key: Key, uid: str) -> None: ...

    def on_sync(self, namespace: str | None) -> None: ...

    def on_start_node(self, name: str, zone: str | None) -> None: ...


def make_reconciler(
    network_policy_peers: list[Manifest] | None = None,
    settings: Settings = SETTINGS,
    shard: int = 0,
) -> tuple[Reconciler, ClusterCache]:
    """Return a reconciler, and its cache with one session."""
    kube, handler = cast(KubeClient, Api()), Handler()
    cache = ClusterCache(
        kube, [], handler, watch_nodes=False, network_policy_peers=network_policy_peers
    )
    for informer in cache.informers:
        informer._accept(None)
    cache.sessions_listed(None, known=True)
    cache.classes.informer._upsert(("", "standard"), CLASS)
    cache.upsert_session(BODY)
    http = cast(aiohttp.ClientSession, None)
    reconciler = Reconciler(settings, kube, http, cache, master_key(), handler.enqueue, shard)
    reconciler.starts.open()
    return reconciler, cache


async def test_a_session_whose_status_is_rejected_holds_up_no_start() -> None:
    """A tenant could have as many of them as there are permits."""
    reconciler, cache = make_reconciler()
    state = ReconcileState(KEY, "uid-1")
    await reconciler.reconcile(state)
    assert KEY in {("ns", name.removeprefix("wasession-")) for _, name in cache.pods.objects}
    assert reconciler.starts.is_held(KEY)
    with pytest.raises(Rejected):
        await reconciler.reconcile(state)
    assert not reconciler.starts.is_held(KEY)


async def test_a_session_of_a_namespace_that_is_not_served_holds_up_nothing() -> None:
    """The pods of its namespace cannot be listed, so it may seem to need a start for ever."""
    reconciler, cache = make_reconciler()
    cache.pods._reject(None, "forbidden")
    reconciler.expect_start(KEY, BODY)
    assert reconciler.starts.is_held(KEY)
    reconciler.updates.open()
    reconciler.updates.request(KEY, ("class", "standard"))
    await reconciler.reconcile(ReconcileState(KEY, "uid-1"))
    assert not reconciler.starts.is_held(KEY)
    assert not reconciler.updates.is_held(KEY, ("class", "standard"))


async def test_a_pod_that_may_lack_its_secret_does_not_delay_the_status() -> None:
    """An operator has ended between the pod's creation and the first status."""
    reconciler, cache = make_reconciler()
    starting = pod(ready=False)
    starting["metadata"]["resourceVersion"] = "7"
    cache.pods._upsert(("ns", "wasession-sales"), starting)
    with pytest.raises(Rejected, match="status"):
        await reconciler.reconcile(ReconcileState(KEY, "uid-1"))


@pytest.mark.parametrize("resource", ["classes", "policies"])
async def test_what_a_start_depends_on_is_known_before(resource: str) -> None:
    """It is not a class that the session waits for, but the right to list classes."""
    reconciler, cache = make_reconciler(network_policy_peers=[])
    assert cache.network_policies is not None
    if resource == "classes":
        cache.classes.informer._synced.clear()
        informer, reason = cache.classes.informer, "ClassNotFound"
    else:
        informer, reason = cache.network_policies.informer, "NetworkPolicyFailed"
    informer._reject(None, "forbidden")
    with pytest.raises(Rejected, match="status"):
        await reconciler.reconcile(ReconcileState(KEY, "uid-1"))
    violation = reconciler._find_rejection("ns")
    assert violation is not None
    assert violation.reason == reason
    assert violation.message.endswith(": forbidden")
    assert not cache.pods.objects
    assert not cache.pvcs.objects


async def test_a_session_awaits_the_budget_of_its_volumes_node() -> None:
    """Until its pod is bound to another one."""
    reconciler, cache = make_reconciler()
    for name in ("node-1", "node-2"):
        reconciler.starts.set_node(name, "zone")
    claim = pvc(annotations={"volume.kubernetes.io/selected-node": "node-1"}, resourceVersion="6")
    cache.pvcs._upsert(("ns", "wasession-sales"), claim)
    for number in range(SETTINGS.max_concurrent_starts_per_node):
        reconciler.starts.adopt(("ns", f"s{number}"), "node-1")
    reconciler.expect_start(KEY, BODY)
    assert reconciler.starts.bottleneck(KEY) == "node node-1"
    with pytest.raises(Rejected, match="status"):
        await reconciler.reconcile(ReconcileState(KEY, "uid-1"))
    assert not cache.pods.objects
    starting = pod(ready=False, spec={})
    starting["metadata"]["resourceVersion"] = "7"
    starting["spec"]["nodeName"] = "node-2"
    cache.pods._upsert(("ns", "wasession-sales"), starting)
    reconciler.expect_start(KEY, {**BODY, "status": {"phase": "Starting"}})
    assert reconciler.starts.is_held(KEY)
    for number in range(1, SETTINGS.max_concurrent_starts_per_node):
        assert reconciler.starts.request(("ns", f"t{number}"), (True, 0.0), "node-2")
    assert not reconciler.starts.request(("ns", "t0"), (True, 0.0), "node-2")


async def test_a_session_starts_within_its_shards_part_of_the_budget() -> None:
    reconciler, _ = make_reconciler(settings=SETTINGS.model_copy(update={"shards": 4}), shard=3)
    reconciler.starts.set_node("node-1", "zone")
    keys = [("ns", f"s{number}") for number in range(SETTINGS.max_concurrent_starts_per_node)]
    granted = [reconciler.starts.request(key, (True, 0.0), "node-1") for key in keys]
    assert sum(granted) == 2


async def test_known_classes_count_when_they_cannot_be_watched_any_more() -> None:
    reconciler, cache = make_reconciler()
    cache.classes.informer._reject(None, "forbidden")
    await reconciler.reconcile(ReconcileState(KEY, "uid-1"))
    assert ("ns", "wasession-sales") in cache.pods.objects


async def test_a_pod_of_another_class_has_no_revision_of_this_one() -> None:
    """The default class is another one now: what a rollout has not reached waits for it."""
    reconciler, cache = make_reconciler()
    template = '{"image": "pod:1"}'
    rollout = {
        "operator": "", "revision": "b", "stable": {"name": "a", "template": template},
        "phase": "Canary", "since": NOW, "started": NOW, "stepStarted": NOW,
    }  # fmt: skip
    rolling = {"image": "pod:2", "template": {"updateStrategy": "RollingUpdate"}, "rollout": {}}
    changed = {"spec": rolling, "status": {"rollouts": [rollout]}}
    cache.classes._changed(CLASS, CLASS | changed)
    other = pod()
    other["metadata"]["resourceVersion"] = "7"
    other["metadata"]["annotations"] |= {
        names.ANNOTATION_CLASS: "gold",
        names.ANNOTATION_REVISION: "x",
        names.ANNOTATION_OWN_SPEC: own_spec({}),
    }
    cache.pods._upsert(("ns", "wasession-sales"), other)
    body = BODY | {"status": {"revision": "x"}}
    session_class = cache.classes.get("standard")
    assert session_class is not None
    revision = reconciler._find_revision(ReconcileState(KEY, "uid-1"), body, session_class)
    assert revision == Revision(name="a", template=template)


async def test_a_session_is_deleted_without_its_class() -> None:
    reconciler, cache = make_reconciler()
    cache.classes.informer._synced.clear()
    cache.classes.informer._reject(None, "the server could not find the requested resource")
    running = pod()
    running["metadata"]["resourceVersion"] = "7"
    cache.pods._upsert(("ns", "wasession-sales"), running)
    metadata = {**BODY["metadata"], "resourceVersion": "8"}
    metadata["deletionTimestamp"] = datetime.now(UTC).isoformat()
    cache.upsert_session({**BODY, "metadata": metadata, "status": {"sessionValid": False}})
    await reconciler.reconcile(ReconcileState(KEY, "uid-1"))
    assert cast(Api, reconciler._kube).deleted == ["wasession-sales"]
