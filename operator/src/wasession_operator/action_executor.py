"""Executes the actions of a plan against the API server and the session pod."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from wasession_api import names
from wasession_api.kube.client import (
    PODS,
    SECRETS,
    SESSIONS,
    Conflict,
    KubeClient,
    Rejected,
    Unavailable,
)
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, key_of
from wasession_api.session_pod.token_derivation import derive_tokens, token_id
from wasession_api.v1alpha1 import Reason

from wasession_operator import objects, start_traces
from wasession_operator.backoff import next_backoff
from wasession_operator.backups.backup import is_below
from wasession_operator.backups.store import Store, StoreError
from wasession_operator.cluster_cache import ClusterCache, object_key, requested
from wasession_operator.master_key import MasterKey
from wasession_operator.plan import Action, Backoff, Refusal, Session, actions
from wasession_operator.plan.facts import AppliedSecret
from wasession_operator.plan.manifests import (
    Repair,
    is_managed,
    metadata_repair,
    ownership_conflict,
)
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.report_watcher import OrderFailed
from wasession_operator.settings import Settings

log = logging.getLogger(__name__)
FAILURE_REASONS = {
    actions.AddFinalizer: Reason.SESSION_UPDATE_FAILED,
    actions.RemoveFinalizer: Reason.SESSION_UPDATE_FAILED,
    actions.ApplySecret: Reason.SECRET_UPDATE_FAILED,
    actions.ApplyNetworkPolicy: Reason.NETWORK_POLICY_FAILED,
    actions.CreatePvc: Reason.PVC_CREATE_FAILED,
    actions.SetPvcOwner: Reason.PVC_UPDATE_FAILED,
    actions.RepairPvc: Reason.PVC_UPDATE_FAILED,
    actions.RepairPod: Reason.POD_UPDATE_FAILED,
    actions.ExpandPvc: Reason.PVC_EXPAND_FAILED,
    actions.DeletePvc: Reason.PVC_DELETE_FAILED,
    actions.CreatePod: Reason.POD_CREATE_FAILED,
    actions.CheckPod: Reason.UPDATE_REFUSED,
    actions.RefreshToken: Reason.POD_UPDATE_FAILED,
    actions.DeletePod: Reason.POD_DELETE_FAILED,
    actions.Logout: Reason.LOGOUT_FAILED,
    actions.NoteLogout: Reason.LOGOUT_FAILED,
    actions.ConfigureDelivery: Reason.DELIVERY_NOT_ACCEPTED,
}
EXCEEDED_QUOTA = "exceeded quota:"  # in the message of the API server's ResourceQuota admission
NAMESPACE_TERMINATING = "because it is being terminated"  # in its message on new objects
# In its messages on a Secret of that name with another controller, or of another type.
FOREIGN_SECRET = ("Only one reference can have Controller set to true", "type: Invalid value")
# What the session's pod does; these are only begun, as a logout may wait for the phone.
ORDERS = (actions.Logout, actions.NoteLogout, actions.ConfigureDelivery)
CREATIONS = (actions.ApplySecret, actions.CreatePvc, actions.CreatePod)


class _Outdated(Exception):
    """An object has changed since the plan was made; it has been read again."""


class ActionExecutor:
    """``enqueue`` is called with a session whose action has failed, so that its status says so."""

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        cache: ClusterCache,
        master_key: MasterKey,
        enqueue: Callable[[Key], None],
        store: Store | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._master_key = master_key
        self._kube = kube
        self._cache = cache
        self._enqueue = enqueue

    async def execute(self, session: Session, state: ReconcileState, action: Action) -> None:
        """Execute one action, and record whether it has failed."""
        try:
            if isinstance(action, ORDERS):
                self._begin_order(session, state, action)
            else:
                await self._execute(session, state, action)
                self._record_success(state, action)
        except _Outdated as error:
            self._plan_again(state, action, error)
        except (Rejected, Conflict, Unavailable, OrderFailed) as error:
            if isinstance(error, Rejected) and NAMESPACE_TERMINATING in str(error):
                raise Unavailable(str(error)) from None  # no failure of the session: it goes too
            self._record_refusal(state, action, error)

    async def _execute(self, session: Session, state: ReconcileState, action: Action) -> None:
        match action:
            case actions.AddFinalizer(present):
                await self._patch_finalizers(state, present, add=True)
            case actions.RemoveFinalizer(present):
                await self._patch_finalizers(state, present, add=False)
            case actions.CreatePvc() | actions.CreatePod():
                await self._create_object(session, state, action)
            case actions.ApplyNetworkPolicy(manifest):
                if self._cache.network_policies is not None:
                    await self._cache.network_policies.apply(self._kube, manifest)
            case actions.ApplySecret(epoch, archive):
                url = None if archive is None else await self._sign(archive, session.namespace)
                await self._apply_secret(session, state, epoch, url)
            case actions.SetPvcOwner(references):
                # Merged by UID: references to other owners stay.
                owners = references or [{"$patch": "delete", "uid": session.uid}]
                changes: Manifest = {"metadata": {"ownerReferences": owners}}
                await self._patch(self._cache.pvcs, state.key, changes)
            case actions.RepairPvc():
                await self._repair(self._cache.pvcs, state.key, action)
            case actions.RepairPod():
                await self._repair(self._cache.pods, state.key, action)
            case actions.ExpandPvc(size):
                changes = {"spec": {"resources": {"requests": {"storage": size}}}}
                await self._patch(self._cache.pvcs, state.key, changes)
            case actions.DeletePvc(uid):
                await self._delete(self._cache.pvcs, state, uid)
            case actions.CheckPod(template):
                await self._check_pod(session)
                state.accept(template)
                self._enqueue(state.key)
            case actions.RefreshToken(token_id):
                changes = {"metadata": {"annotations": {names.ANNOTATION_TOKEN_ID: token_id}}}
                await self._patch(self._cache.pods, state.key, changes)
            case actions.DeletePod(uid, _, grace_seconds, failed):
                await self._delete(self._cache.pods, state, uid, grace_seconds)
                if failed:
                    state.pod_failures = next_backoff(state.pod_failures)

    async def _create_object(
        self, session: Session, state: ReconcileState, action: actions.CreatePvc | actions.CreatePod
    ) -> None:
        identity = (session.namespace, session.name, session.uid, session.spec)
        match action:
            case actions.CreatePvc(restore):
                claim = objects.make_pvc(*identity, restore)
                await self._create(self._cache.pvcs, claim, session)
            case actions.CreatePod(restoring, restart, token_id, previous_owners, content):
                with start_traces.creating_pod(state) as traceparent:
                    manifest = objects.make_pod(
                        *identity[:3],
                        session.spec_of_pod,
                        self._settings,
                        restoring=restoring,
                        restart=restart,
                        token_id=token_id,
                        previous_owners=previous_owners,
                        own_spec=session.own_spec,
                        revision=session.revision,
                        restore=content,
                        traceparent=traceparent,
                    )
                    await self._create(self._cache.pods, manifest, session)

    async def _check_pod(self, session: Session) -> None:
        """Raise ``Rejected`` if the API server would not accept the session's next pod.

        A quota that both pods together exceed is no reason: the present one goes first.
        """
        manifest = objects.make_pod(
            session.namespace,
            session.name,
            session.uid,
            session.spec_of_pod,
            self._settings,
            restoring=False,
        )
        manifest["metadata"]["generateName"] = f"{manifest['metadata'].pop('name')}-"
        try:
            await self._kube.create(PODS, manifest, dry_run=True)
        except Rejected as error:
            if EXCEEDED_QUOTA not in str(error):
                raise

    async def _sign(self, archive: str, namespace: str) -> str:
        """Return a URL with which a pod can fetch an archive; raise ``Rejected`` without one."""
        if not is_below(archive, namespace):  # anybody who can edit a status can name any
            raise Rejected(f"The archive {archive} is not one of the namespace {namespace}.")
        if self._store is None:
            raise Rejected("The operator has no store of backups: set backups.store of its chart.")
        try:
            return await self._store.sign_get(archive)
        except StoreError as error:
            raise Unavailable(str(error)) from None

    async def _apply_secret(
        self, session: Session, state: ReconcileState, epoch: int, restore_url: str | None
    ) -> None:
        """Apply the Secret with the tokens of an epoch; not to one that is somebody else's."""
        key = self._master_key.of(session.namespace)
        tokens = derive_tokens(key, session.uid, epoch)
        identity = (session.namespace, session.name, session.uid, session.spec)
        manifest = objects.make_secret(*identity, tokens, restore_url)
        try:
            await self._kube.apply(SECRETS, manifest)
        except Conflict as error:  # another write at the same moment
            raise Unavailable(str(error)) from None
        except Rejected as error:
            if not any(part in str(error) for part in FOREIGN_SECRET):
                raise
            name = manifest["metadata"]["name"]
            message = f"Secret {name} is not the session's; it will not be modified."
            raise Conflict(message) from None
        state.token_epoch = epoch
        state.secret_applied = AppliedSecret(token_id(tokens[0]), datetime.now(UTC))

    async def _create(self, informer: Informer, manifest: Manifest, session: Session) -> None:
        """Create an object. If the session has it already, take it in.

        The informer was behind, or does not watch it because its labels were removed. Raise
        ``_Outdated`` for a claim: what it notes of its login decides whether there is to be a pod.
        """
        try:
            informer.upsert(await self._kube.create(informer.resource, manifest))
        except Conflict as conflict:
            present = await self._kube.get(informer.resource, *key_of(manifest))
            if present is None:
                raise Unavailable(str(conflict)) from None
            present["kind"] = informer.resource.kind
            if is_managed(present):
                informer.upsert(present)
            elif problem := ownership_conflict(session, present):
                raise Conflict(problem.message) from None
            elif repair := metadata_repair(session, present):
                await self._repair(informer, (session.namespace, session.name), repair)
            if informer is self._cache.pvcs:
                raise _Outdated(str(conflict)) from None

    async def _patch(self, informer: Informer, key: Key, patch: Manifest) -> None:
        """Patch an object that is as it was planned for; raise ``_Outdated`` for another one."""
        name = object_key(key)
        present = await self._present(informer, name)
        if present is None:
            return  # it is planned again when the informer knows
        metadata = _preconditions(present) | patch.get("metadata", {})
        try:
            obj = await self._kube.patch(informer.resource, *name, {**patch, "metadata": metadata})
        except Conflict as conflict:
            await self._refresh(informer, name)
            raise _Outdated(str(conflict)) from None
        if obj is not None:
            informer.upsert(obj)

    async def _present(self, informer: Informer, name: Key) -> Manifest | None:
        """Return an object as it is cached; it is read if its labels have been removed."""
        return informer.objects.get(name) or await self._kube.get(informer.resource, *name)

    async def _refresh(self, informer: Informer, name: Key) -> None:
        """Read an object that is not as it is cached: its watch is behind."""
        obj = await self._kube.get(informer.resource, *name)
        if obj is not None and name in informer.objects:
            informer.upsert(obj)

    async def _repair(self, informer: Informer, key: Key, repair: Repair) -> None:
        metadata = {
            "uid": repair.uid,
            "labels": repair.labels,
            "annotations": repair.annotations,
        }
        await self._patch(informer, key, {"metadata": metadata})

    async def _patch_finalizers(
        self, state: ReconcileState, present: tuple[str, ...], *, add: bool
    ) -> None:
        key = state.key
        before = self._cache.sessions.get(key)
        if before is None:
            return
        version = state.latest_version(before["metadata"]["resourceVersion"])
        patch = objects.finalizer_patch(state.uid, version, present, add=add)
        try:
            session = await self._kube.patch(SESSIONS, *key, patch)
        except Conflict as conflict:
            await self._cache.refresh_session(key)
            raise _Outdated(str(conflict)) from None
        except Rejected as error:
            raise Unavailable(str(error)) from None  # another session has the name: await its event
        if session is None or key not in self._cache.sessions:
            return
        self._cache.upsert_session(session)
        if requested(before) != requested(self._cache.sessions[key]):
            # The response has someone else's change too, and its watch event brings nothing new.
            self._enqueue(key)

    async def _delete(
        self, informer: Informer, state: ReconcileState, uid: str, grace_seconds: int | None = None
    ) -> None:
        """Delete an object that is as it was planned for; raise ``_Outdated`` for another one."""
        name = object_key(state.key)
        present = await self._present(informer, name)
        if present is None or present["metadata"]["uid"] != uid:
            return  # it is gone
        version = present["metadata"]["resourceVersion"]
        try:
            await self._kube.delete(informer.resource, *name, uid, grace_seconds, version)
        except Conflict as conflict:
            await self._refresh(informer, name)
            raise _Outdated(str(conflict)) from None
        state.deleted.add(uid)

    def _begin_order(
        self,
        session: Session,
        state: ReconcileState,
        action: actions.Logout | actions.NoteLogout | actions.ConfigureDelivery,
    ) -> None:
        def on_result(error: OrderFailed | None) -> None:
            if error is not None:
                self._record_refusal(state, action, error)
            else:
                self._record_success(state, action)

        self._kube.check_fence()  # the pod does not know which replica acts
        if state.report_watcher is None:
            raise OrderFailed("the pod cannot be reached")
        match action:
            case actions.NoteLogout():
                state.report_watcher.note_logout(action.request, on_result)
            case actions.ConfigureDelivery():
                state.report_watcher.configure_delivery(action.configuration, on_result)
            case actions.Logout():
                timeout = session.spec.timeouts.logout.total_seconds()
                state.report_watcher.logout(action.request, timeout, on_result)

    def _plan_again(self, state: ReconcileState, action: Action, error: _Outdated) -> None:
        """Plan again at once with what was read since; with backoff if that happens repeatedly."""
        if type(action) in state.outdated:
            self._record_refusal(state, action, Unavailable(str(error)))
        else:
            state.outdated.add(type(action))
            self._enqueue(state.key)

    def _record_success(self, state: ReconcileState, action: Action) -> None:
        state.outdated.discard(type(action))
        if state.refusals.pop(type(action), None) is not None:
            self._enqueue(state.key)  # its status still shows the failure

    def _record_refusal(
        self,
        state: ReconcileState,
        action: Action,
        error: Rejected | Conflict | Unavailable | OrderFailed,
    ) -> None:
        kind, reason, message = type(action), FAILURE_REASONS[type(action)], str(error)
        if isinstance(error, Conflict) and kind in CREATIONS:
            reason = Reason.NAME_CONFLICT
        before = state.refusals.get(kind)
        retry = next_backoff(before.retry if before else Backoff())
        assert retry.until is not None
        after = timedelta(seconds=getattr(error, "retry_after", 0.0))
        retry = replace(retry, until=retry.until + after)
        transient = isinstance(error, Unavailable)
        state.refusals[kind] = Refusal(reason, message, retry, transient)
        log.warning(
            "%s failed; it is retried with backoff",
            kind.__name__,
            extra={**state.log_extra, "reason": reason, "error": message, "failures": retry.count},
        )
        self._enqueue(state.key)


def _preconditions(cached: Manifest) -> Manifest:
    """Return what has the API server refuse the patch of any object but this one, as it is."""
    return {field: cached["metadata"][field] for field in ("uid", "resourceVersion")}
