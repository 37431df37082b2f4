"""What is executed, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from unit.operator.situations import SETTINGS, master_key, pvc, session
from wasession_api.kube.client import (
    PODS,
    PVCS,
    SECRETS,
    SESSIONS,
    Conflict,
    KubeClient,
    Rejected,
    Resource,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.names import FINALIZER
from wasession_api.session_pod.token_derivation import derive_token, namespace_key, token_id
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import Reason
from wasession_operator.action_executor import ActionExecutor
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.plan.actions import (
    Action,
    AddFinalizer,
    ApplySecret,
    CheckPod,
    DeletePvc,
    ExpandPvc,
    RemoveFinalizer,
    RepairPvc,
    SetPvcOwner,
)
from wasession_operator.reconcile_state import ReconcileState

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
        self.deletions: list[tuple[Any, ...]] = []
        self.present: Manifest | None = None  # what a read returns

    async def get(self, resource: Resource, *where: Any) -> Manifest | None:
        return self.present

    async def delete(self, resource: Resource, *where: Any) -> Manifest | None:
        self.deletions.append((resource, *where))
        return self.answer()

    async def patch(self, resource: Resource, *where: Any) -> Manifest | None:
        assert resource in (SESSIONS, PVCS)
        self.patches.append(where[2])
        return self.answer()


class Fixture:
    """An executor, a cache that knows the session, and the keys that were enqueued."""

    def __init__(self, answer: Callable[[], Manifest | None]) -> None:
        self.api = Api(answer)
        self.enqueued: list[Key] = []
        self.state = ReconcileState(KEY, "uid-1")
        kube = cast(KubeClient, self.api)
        self.cache = ClusterCache(kube, [], self, watch_nodes=False)
        self.cache.upsert_session(BODY)
        self.enqueued.clear()
        self.executor = ActionExecutor(SETTINGS, kube, self.cache, master_key(), self.enqueue)

    def enqueue(self, key: Key) -> None:
        self.enqueued.append(key)

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        raise AssertionError("not a watch event")

    def on_delete(self, key: Key, uid: str) -> None:
        """Nothing."""

    def on_sync(self, namespace: str | None) -> None:
        """Nothing."""

    def on_start_node(self, name: str, zone: str | None) -> None:
        """Nothing."""

    async def execute(self, action: Action) -> None:
        await self.executor.execute(session(), self.state, action)


async def test_a_finalizer_is_cached_as_soon_as_the_api_server_has_it() -> None:
    fixture = Fixture(lambda: HELD)
    await fixture.execute(AddFinalizer(()))
    assert fixture.cache.sessions[KEY]["metadata"]["finalizers"] == [FINALIZER]
    [patch] = fixture.api.patches
    assert patch[-1] == {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}
    assert fixture.enqueued == []


async def test_a_change_by_someone_else_in_the_response_is_reconciled() -> None:
    """The watch brings nothing new after it: the cached session has that version already."""
    metadata = {**HELD["metadata"], "generation": 2}
    fixture = Fixture(lambda: {**HELD, "metadata": metadata, "spec": {"suspend": True}})
    await fixture.execute(AddFinalizer(()))
    assert fixture.enqueued == [KEY]


@pytest.mark.parametrize(
    ("error", "accepted"),
    [
        (None, True),
        (Rejected('pods "wasession-sales-" is forbidden: exceeded quota: q, used: pods=1'), True),
        (Rejected("spec.tolerations[0].operator: Unsupported value"), False),
    ],
)
async def test_the_next_pod_is_checked_beside_the_present_one(
    error: Exception | None, accepted: bool
) -> None:
    """Both together may exceed a quota, in which the next one has the place of the present one."""
    created: list[Manifest] = []

    async def create(resource: Resource, manifest: Manifest, *, dry_run: bool) -> Manifest:
        assert resource is PODS
        assert dry_run
        created.append(manifest)
        if error is not None:
            raise error
        return manifest

    fixture = Fixture(lambda: None)
    fixture.api.create = create  # type: ignore[attr-defined]
    await fixture.execute(CheckPod("hash"))
    [manifest] = created
    assert "name" not in manifest["metadata"], "its name is the present pod's"
    assert manifest["metadata"]["generateName"] == "wasession-sales-"
    assert fixture.state.fresh_template() == ("hash" if accepted else None)
    assert (CheckPod in fixture.state.refusals) is not accepted
    assert fixture.enqueued == [KEY]


async def test_a_session_deleted_meanwhile_does_not_come_back() -> None:
    def answer() -> Manifest:
        fixture.cache.delete_session(KEY, "uid-1")
        return HELD

    fixture = Fixture(answer)
    await fixture.execute(AddFinalizer(()))
    assert KEY not in fixture.cache.sessions


@pytest.mark.parametrize("action", [AddFinalizer(()), RemoveFinalizer((FINALIZER,))])
async def test_a_session_that_someone_else_has_changed_is_planned_again(
    action: AddFinalizer | RemoveFinalizer,
) -> None:
    """As it is then, even if the watch is behind; that is no failure."""

    def answer() -> Manifest:
        raise Conflict("the object has been modified")

    fixture = Fixture(answer)
    fixture.api.present = HELD
    await fixture.execute(action)
    assert fixture.state.refusals == {}
    assert fixture.enqueued == [KEY]
    assert fixture.cache.sessions[KEY]["metadata"]["resourceVersion"] == "6"


@pytest.mark.parametrize("action", [AddFinalizer(()), RemoveFinalizer((FINALIZER,))])
async def test_finalizers_of_another_session_of_that_name_are_left_alone(
    action: AddFinalizer | RemoveFinalizer,
) -> None:
    def answer() -> Manifest:
        raise Rejected("testing path /metadata/uid")

    fixture = Fixture(answer)
    await fixture.execute(action)
    refusal = fixture.state.refusals[type(action)]
    assert refusal.transient, "no problem before it has lasted"
    assert fixture.enqueued == [KEY]


async def test_a_finalizer_is_for_the_version_after_the_last_write() -> None:
    """The watch may be behind the status that was written just before."""
    fixture = Fixture(lambda: HELD)
    for written, expected in (("4", "5"), ("7", "7")):
        fixture.state.written_version = written
        fixture.cache.sessions[KEY] = BODY
        await fixture.execute(AddFinalizer(()))
        [version] = [o["value"] for o in fixture.api.patches[-1] if "resourceV" in o["path"]]
        assert version == expected


CLAIM = {**pvc(), "metadata": {**pvc()["metadata"], "resourceVersion": "8"}}
PRECONDITIONS = {"uid": "pvc-uid", "resourceVersion": "8"}


@pytest.mark.parametrize(
    ("action", "patch"),
    [
        (ExpandPvc("2Gi"), {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
        (
            SetPvcOwner(None),
            {"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "uid-1"}]}},
        ),
    ],
)
async def test_a_patch_is_for_the_object_that_was_planned_for(
    action: Action, patch: Manifest
) -> None:
    """What it is by now is read, as the watch may be behind; then it is planned again."""

    def answer() -> Manifest:
        raise Conflict("the object has been modified")

    fixture = Fixture(answer)
    fixture.cache.pvcs.objects["ns", "wasession-sales"] = CLAIM
    fixture.api.present = {
        **CLAIM,
        "kind": "PersistentVolumeClaim",
        "metadata": {**CLAIM["metadata"], "resourceVersion": "9"},
    }
    await fixture.execute(action)
    metadata = {**PRECONDITIONS, **patch.get("metadata", {})}
    assert fixture.api.patches == [{**patch, "metadata": metadata}]
    assert fixture.state.refusals == {}
    assert KEY in fixture.enqueued
    claim = fixture.cache.pvcs.objects["ns", "wasession-sales"]
    assert claim["metadata"]["resourceVersion"] == "9"


@pytest.mark.parametrize("cached", [True, False])
async def test_a_deletion_is_for_the_object_that_was_planned_for(cached: bool) -> None:
    """One that has lost its labels is not cached."""
    fixture = Fixture(lambda: None)
    fixture.api.present = CLAIM
    if cached:
        fixture.cache.pvcs.objects["ns", "wasession-sales"] = CLAIM
    await fixture.execute(DeletePvc("another"))
    assert fixture.api.deletions == []
    await fixture.execute(DeletePvc("pvc-uid"))
    assert fixture.api.deletions == [(PVCS, "ns", "wasession-sales", "pvc-uid", None, "8")]
    assert fixture.state.deleted == {"pvc-uid"}


async def test_a_deletion_of_an_object_that_has_changed_is_planned_again() -> None:
    def answer() -> Manifest:
        raise Conflict("the object has been modified")

    fixture = Fixture(answer)
    fixture.cache.pvcs.objects["ns", "wasession-sales"] = CLAIM
    await fixture.execute(DeletePvc("pvc-uid"))
    assert fixture.state.deleted == set()
    assert fixture.state.refusals == {}
    assert fixture.enqueued == [KEY]


async def test_a_terminating_namespace_is_no_failure_of_its_sessions() -> None:
    def answer() -> Manifest:
        raise Rejected(
            "forbidden: unable to create new content in it because it is being terminated"
        )

    fixture = Fixture(answer)
    fixture.cache.pvcs.objects["ns", "wasession-sales"] = CLAIM
    with pytest.raises(Unavailable):
        await fixture.execute(RepairPvc("pvc-uid", {}, {}))
    assert fixture.state.refusals == {}


# --- the Secret -----------------------------------------------------------------------------------

CONTROLLED = (
    'Secret "wasession-token-sales" is invalid: metadata.ownerReferences: Invalid value: [...]: '
    'Only one reference can have Controller set to true. Found "true" in references for '
    "Deployment/web and WhatsAppSession/sales"
)
TYPED = (
    'Secret "wasession-token-sales" is invalid: type: Invalid value: '
    '"wasession.dev/session-token": field is immutable'
)


class SecretApi:
    """An API server that takes Secrets, or fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.secrets: list[Manifest] = []

    async def apply(self, resource: Resource, manifest: Manifest) -> Manifest:
        assert resource is SECRETS
        if self.error is not None:
            raise self.error
        self.secrets.append(manifest)
        return manifest


def with_secrets(error: Exception | None = None) -> tuple[Fixture, SecretApi]:
    fixture, api = Fixture(lambda: None), SecretApi(error)
    fixture.api.apply = api.apply  # type: ignore[attr-defined]
    return fixture, api


async def test_the_secret_has_the_tokens_of_the_epoch_and_the_one_before() -> None:
    fixture, api = with_secrets()
    key = namespace_key(bytes(32), "ns")
    for epoch in (0, 3):
        await fixture.execute(ApplySecret(epoch))
        present = derive_token(key, "uid-1", epoch)
        expected = [present] + ([derive_token(key, "uid-1", epoch - 1)] if epoch else [])
        assert tokens(api.secrets[-1]) == expected
        assert fixture.state.token_epoch == epoch
        assert fixture.state.secret_applied is not None
        assert fixture.state.secret_applied.token_id == token_id(present)
    assert fixture.state.refusals == {}


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (Rejected(CONTROLLED), Reason.NAME_CONFLICT, False),
        (Rejected(TYPED), Reason.NAME_CONFLICT, False),
        (Rejected("exceeded quota"), Reason.SECRET_UPDATE_FAILED, False),
        (Conflict("the object has been modified"), Reason.SECRET_UPDATE_FAILED, True),
        (Unavailable("no answer"), Reason.SECRET_UPDATE_FAILED, True),
    ],
)
async def test_a_secret_that_is_not_applied_is_a_refusal(
    error: Exception, reason: Reason, transient: bool
) -> None:
    fixture, _ = with_secrets(error)
    await fixture.execute(ApplySecret(0))
    refusal = fixture.state.refusals[ApplySecret]
    assert (refusal.reason, refusal.transient) == (reason, transient)
    assert fixture.state.secret_applied is None
    assert fixture.enqueued == [KEY]
