"""Does what a plan says, one action at a time."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from wasession_api import names
from wasession_api.kube.client import SESSIONS, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import Reason

from wasession_operator import objects
from wasession_operator.cluster_cache import Cluster
from wasession_operator.plan import Action, Backoff, Refusal, Session, actions
from wasession_operator.plan.manifests import annotations_of, not_ours
from wasession_operator.reconcile_state import Memory
from wasession_operator.report_watcher import NotDone
from wasession_operator.settings import Settings

REFUSED = {
    actions.CreateSecret: Reason.SECRET_REFUSED,
    actions.RotateToken: Reason.SECRET_REFUSED,
    actions.CreatePvc: Reason.VOLUME_REFUSED,
    actions.OwnPvc: Reason.VOLUME_REFUSED,
    actions.GrowPvc: Reason.VOLUME_RESIZE_REFUSED,
    actions.CreatePod: Reason.POD_REFUSED,
    actions.RefreshToken: Reason.POD_REFUSED,
    actions.Logout: Reason.LOGOUT_FAILED,
}


class Effects:
    def __init__(self, settings: Settings, kube: KubeClient, cluster: Cluster) -> None:
        self._settings = settings
        self._kube = kube
        self._cluster = cluster

    async def perform(self, session: Session, memory: Memory, action: Action) -> None:
        """Does one action and remembers whether it was refused. Raises ``Unavailable``.

        A logout, which a person or a phone may have to wait for, is only begun.
        """
        try:
            if isinstance(action, actions.Logout):
                _log_out(session, memory, action)
            else:
                await self._perform(session, memory, action)
                memory.refusals.pop(type(action), None)
        except (Rejected, Conflict, NotDone) as error:
            _refused(memory, action, error)

    async def _perform(self, session: Session, memory: Memory, action: Action) -> None:
        identity = (session.namespace, session.name, session.uid, session.spec)
        secret = self._cluster.secrets.objects.get(
            (session.namespace, names.object_name(session.name))
        )
        match action:
            case actions.AddFinalizer(present):
                await self._patch_finalizers(
                    session, objects.finalizer_patch(session.uid, present, add=True)
                )
            case actions.RemoveFinalizer(present):
                await self._patch_finalizers(
                    session, objects.finalizer_patch(session.uid, present, add=False)
                )
            case actions.CreateSecret(request):
                manifest = objects.make_secret(*identity, objects.new_token(), request)
                await self._create(self._cluster.secrets, manifest, session)
            case actions.RotateToken(request):
                assert secret is not None
                patch = objects.secret_patch(
                    secret, session.name, session.uid, objects.new_token(), request
                )
                await self._patch(self._cluster.secrets, session, patch)
            case actions.CreatePvc():
                await self._create(self._cluster.pvcs, objects.make_pvc(*identity), session)
            case actions.OwnPvc(references):
                await self._patch(
                    self._cluster.pvcs, session, {"metadata": {"ownerReferences": references}}
                )
            case actions.GrowPvc(size):
                patch = {"spec": {"resources": {"requests": {"storage": size}}}}
                await self._patch(self._cluster.pvcs, session, patch)
            case actions.DeletePvc(uid):
                await self._delete(self._cluster.pvcs, session, uid, memory)
            case actions.CreatePod(restoring, restart):
                token_id = annotations_of(secret).get(names.ANNOTATION_TOKEN_ID) if secret else None
                manifest = objects.make_pod(
                    *identity,
                    self._settings,
                    restoring=restoring,
                    restart=restart,
                    token_id=token_id,
                )
                await self._create(self._cluster.pods, manifest, session)
            case actions.RefreshToken(token_id):
                patch = {"metadata": {"annotations": {names.ANNOTATION_TOKEN_ID: token_id}}}
                await self._patch(self._cluster.pods, session, patch)
            case actions.DeletePod(uid, _, grace_seconds, failed):
                await self._delete(self._cluster.pods, session, uid, memory, grace_seconds)
                if failed:
                    memory.failures = again(memory.failures)

    async def _create(self, watch: Informer, manifest: Manifest, session: Session) -> None:
        """Creates an object. One of ours that has its name already was made before the watch told of it."""
        try:
            watch.upsert(await self._kube.create(watch.resource, manifest))
        except Conflict as conflict:
            metadata = manifest["metadata"]
            found = await self._kube.get(watch.resource, metadata["namespace"], metadata["name"])
            if found is None:
                raise Unavailable(str(conflict)) from None
            if found["metadata"].get("labels", {}).get(names.LABEL_MANAGED_BY) != names.MANAGED_BY:
                problem = not_ours(session, {**found, "kind": watch.resource.kind})
                raise Conflict(problem[1] if problem else str(conflict)) from None
            watch.upsert(found)

    async def _patch(self, watch: Informer, session: Session, patch: Manifest) -> None:
        found = await self._kube.patch(
            watch.resource, session.namespace, names.object_name(session.name), patch
        )
        if found is not None:
            watch.upsert(found)

    async def _patch_finalizers(self, session: Session, patch: list[Manifest]) -> None:
        try:
            found = await self._kube.patch(SESSIONS, session.namespace, session.name, patch)
        except (
            Rejected
        ) as error:  # somebody else has changed them: what the watch tells of that comes first
            raise Unavailable(str(error)) from None
        if (
            found is not None and (session.namespace, session.name) in self._cluster.sessions
        ):  # it is not gone meanwhile
            self._cluster.session_seen(found)

    async def _delete(
        self,
        watch: Informer,
        session: Session,
        uid: str,
        memory: Memory,
        grace_seconds: int | None = None,
    ) -> None:
        await self._kube.delete(
            watch.resource, session.namespace, names.object_name(session.name), uid, grace_seconds
        )
        memory.deleted.add(uid)


def _log_out(session: Session, memory: Memory, action: actions.Logout) -> None:
    def ended(error: NotDone | None) -> None:
        if error is not None:
            _refused(memory, action, error)
        else:
            memory.refusals.pop(type(action), None)

    if memory.follower is None:
        raise NotDone("the pod cannot be reached")
    memory.follower.logout(session.spec.timeouts.logout.total_seconds(), ended)


def _refused(memory: Memory, action: Action, error: Rejected | Conflict | NotDone) -> None:
    reason = (
        Reason.NAME_CONFLICT
        if isinstance(error, Conflict)
        else REFUSED.get(type(action), Reason.POD_REFUSED)
    )
    before = memory.refusals.get(type(action))
    retry = again(before.retry if before else Backoff())
    memory.refusals[type(action)] = Refusal(reason, str(error), retry)
    memory.wake()


def again(before: Backoff) -> Backoff:
    """After one failure more."""
    return before.after(datetime.now(UTC), random.uniform(0.8, 1.2))  # noqa: S311
