"""Makes backups, and deletes the archives of those that are deleted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
from pydantic import SecretStr
from wasession_api import names
from wasession_api.kube.client import (
    BACKUPS,
    NAMESPACES,
    VOLUME_SNAPSHOTS,
    Conflict,
    Forbidden,
    KubeClient,
    Rejected,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.session_pod.backup import ArchiveManifest, BackupOrder
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import BackupPhase, BackupReason, BackupSource, BackupStatus

from wasession_operator import metrics, objects
from wasession_operator.backoff import next_backoff
from wasession_operator.backups import plan
from wasession_operator.backups.backup import FINAL, Archive, Backup, parse_backup
from wasession_operator.backups.plan import (
    Facts,
    Observed,
    Ordered,
    Position,
    Problem,
    Progress,
)
from wasession_operator.backups.scheduler import Scheduler
from wasession_operator.backups.snapshot import make_snapshot, parse_snapshot
from wasession_operator.backups.store import StoreError
from wasession_operator.backups.store_sync import StoreSync
from wasession_operator.cluster_cache import login_of, object_key
from wasession_operator.controller import Controller
from wasession_operator.plan import Backoff
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.report_watcher import (
    ORDER_TIMEOUT,
    REQUEST_ERRORS,
    ReportWatcher,
    describe_error,
)
from wasession_operator.sharding.shards import Shards
from wasession_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
WORKERS = 8  # backups that are processed at the same time; they wait for the store and for pods
UNSERVED_RECHECK = 10.0  # seconds
CLUSTER_NAMESPACE = "kube-system"  # its UID stands for the cluster


class Backups:
    """Processes the backups of the sessions that this replica acts on.

    At most ``max_concurrent_backups`` of them are uploaded at the same time; only what is written
    to a status counts.
    """

    def __init__(self, shards: Shards, kube: KubeClient) -> None:
        self.scheduler = Scheduler(shards)
        self._kube = kube
        self._shards = shards
        self._cache = shards.cache
        self._backups = shards.cache.backups
        self._store = shards.store
        self._limit = shards.settings.max_concurrent_backups
        self._sync = StoreSync(shards)
        self._queue = WorkQueue(lambda _: 0.0, duration=None)
        self._progress: dict[Key, tuple[str, Progress]] = {}  # with the UID of the backup
        self._failures: dict[Key, Backoff] = {}  # of API requests
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._beginning: set[Key] = set()  # not written yet
        self._waiting: dict[Key, None] = {}  # for others to be uploaded; first come, first served

    async def run(self) -> None:
        """Process backups until cancelled."""
        await self._cache.wait_for_sync()
        self._backups.cluster = await self._read_cluster()
        self._backups.changed = self._enqueue
        self._shards.session_changed = self._session_changed
        self._shards.shard_started = self._shard_started
        for controller in self._shards.controllers:
            self._shard_started(controller)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.scheduler.run())
            group.create_task(self._sync.run())
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _read_cluster(self) -> str:
        """Return the UID of the cluster; empty if the operator may not know it."""
        backoff = Backoff()
        while True:
            try:
                namespace = await self._kube.get(NAMESPACES, None, CLUSTER_NAMESPACE, metadata=True)
            except Unavailable:
                backoff = next_backoff(backoff)
                await asyncio.sleep(backoff.wait(datetime.now(UTC)).total_seconds())
            except Rejected:
                return ""
            else:
                return "" if namespace is None else str(namespace["metadata"]["uid"])

    # --- the queue --------------------------------------------------------------------------------

    def _enqueue(self, key: Key) -> None:
        if self._is_ours(key):
            self._queue.add(key)

    def _shard_started(self, controller: Controller) -> None:
        """Enqueue the backups of a shard; what was known of them may be outdated by now."""
        for key, session in list(self._backups.open.items()):
            if self._shards.controller_of(session) is controller:
                self._forget(key)
                self._queue.add(key)

    def _session_changed(self, session: Key) -> None:
        for key in self._backups.open_of(session):
            self._enqueue(key)

    def _is_ours(self, key: Key) -> bool:
        """Return whether this replica acts on a backup, or has something to forget about it."""
        if key in self._progress or key in self._timers:
            return True
        session = self._backups.open.get(key)
        return session is not None and self._shards.holds(session)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._cancel_timer(key)
            try:
                await self._process(key)
                self._failures.pop(key, None)
            except Exception as error:
                self._requeue_failed(key, error)
            self._queue.done(key)
            self._wake_waiting()

    def _requeue_failed(self, key: Key, error: Exception) -> None:
        backoff = self._failures[key] = next_backoff(self._failures.get(key, Backoff()))
        delay = backoff.wait(datetime.now(UTC)).total_seconds()
        extra = {"namespace": key[0], "backup": key[1], "requeue_after": round(delay, 1)}
        if isinstance(error, Unavailable | Rejected | Conflict):
            log.warning(
                "API request for a backup failed; requeueing", extra={**extra, "error": str(error)}
            )
        else:
            log.exception("processing a backup failed; requeueing", extra=extra)
        self._requeue(key, delay)

    def _requeue(self, key: Key, delay: float) -> None:
        loop = asyncio.get_running_loop()
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(delay, self._on_timer, key)

    def _on_timer(self, key: Key) -> None:
        del self._timers[key]
        self._queue.add(key)

    def _cancel_timer(self, key: Key) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    def _forget(self, key: Key) -> None:
        self._progress.pop(key, None)
        self._waiting.pop(key, None)
        self._failures.pop(key, None)

    # --- slots ------------------------------------------------------------------------------------

    def _may_begin(self, key: Key) -> bool:
        busy = self._busy()
        return key in busy or len(busy) < self._limit

    def _busy(self) -> set[Key]:
        running = {
            key for key, session in self._backups.running.items() if self._shards.holds(session)
        }
        return running | self._beginning

    def _wake_waiting(self) -> None:
        """Let the first of those that wait have its turn, if there is room."""
        if self._waiting and len(self._busy()) < self._limit:
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._queue.add(key)

    # --- one backup -------------------------------------------------------------------------------

    async def _process(self, key: Key) -> None:
        """Bring a backup one step closer to its end. Raise what API requests raise."""
        backup = self._backups.get(*key)
        if backup is None or not backup.is_open:
            self._forget(key)
            return
        controller = self._shards.controller_of(backup.session)
        if controller is None:
            self._forget(key)
            return
        if not backup.is_terminating and not self._cache.is_served(backup.namespace):
            self._requeue(key, UNSERVED_RECHECK)
            return
        watcher = self._watcher(controller, backup)
        report = None if watcher is None else watcher.report
        facts = await self._gather(controller.kube, backup, report)
        decision = plan.plan(backup, facts)
        if decision.status.reason is BackupReason.QUEUED:
            self._waiting[key] = None
        written = await self._write(controller, backup, decision.status)
        if written is None:
            return
        if written.is_scheduled and written.status.phase in FINAL:
            await self.scheduler.prune(controller, backup.session)
        if decision.failure is not None:
            self._note_failure(backup, decision.failure, report)
        elif decision.action is not None:
            await self._execute(controller, written, decision.action, watcher, report)
        elif decision.requeue_after is not None:
            self._requeue(key, decision.requeue_after.total_seconds())

    def _watcher(self, controller: Controller, backup: Backup) -> ReportWatcher | None:
        state = controller.states.get(backup.session)
        return None if state is None else state.report_watcher

    async def _gather(self, kube: KubeClient, backup: Backup, report: Report | None) -> Facts:
        shared, terminating = False, False
        if backup.is_terminating:
            terminating = await self._is_namespace_terminating(kube, backup.namespace)
        if backup.archive is not None:
            shared = self._is_archive_needed(backup, backup.archive)
        return Facts(
            now=datetime.now(UTC),
            has_store=self._store is not None,
            session=self._session(backup, report),
            origin=self._origin(backup),
            may_begin=self._may_begin(backup.key),
            is_archive_shared=shared,
            is_namespace_terminating=terminating,
            progress=self._progress_of(backup),
        )

    def _origin(self, backup: Backup) -> plan.Origin | None:
        wanted = backup.spec.import_from
        if wanted is None:
            return None
        is_served = self._cache.is_watched(wanted.namespace)
        return plan.Origin(
            is_served,
            is_served and self._backups.informer.has_synced(wanted.namespace),
            self._backups.get(wanted.namespace, wanted.name),
        )

    def _is_archive_needed(self, backup: Backup, archive: str) -> bool:
        """Return whether another backup, which is to stay, is of the same archive."""
        names_of = self._backups.with_archive(archive)
        others = (self._backups.get(backup.namespace, name) for name in names_of)
        return any(
            other is not None and other.uid != backup.uid and not other.is_terminating
            for other in others
        )

    async def _is_namespace_terminating(self, kube: KubeClient, name: str) -> bool:
        """Return whether a namespace is being deleted; False where that cannot be read."""
        try:
            namespace = await kube.get(NAMESPACES, None, name, metadata=True)
        except Rejected:
            return False
        return namespace is None or is_terminating(namespace)

    def _session(self, backup: Backup, report: Report | None) -> plan.SourceSession | None:
        body = self._cache.sessions.get(backup.session)
        if body is None:
            return None
        spec, uid = body.get("spec") or {}, body["metadata"]["uid"]
        status = body.get("status") or {}
        session_class = self._cache.classes.of(body)
        recipients, snapshot_class = None, None
        if session_class is not None:
            policy = session_class.spec.backup_policy
            recipients = tuple(policy.recipients)
            snapshot_class = policy.volume_snapshot_class_name
        source = BackupSource(
            cluster=self._backups.cluster,
            namespace=backup.namespace,
            session_name=backup.session_name,
            session_uid=uid,
            login_id=(report and report.login_id) or login_of(body) or "",
            client_id=spec.get("clientId") or backup.session_name,
            owner=spec.get("owner"),
        )
        return plan.SourceSession(
            source,
            recipients,
            is_stopped=bool(spec.get("suspend")) or is_terminating(body),
            report=report,
            is_terminating=is_terminating(body),
            has_login=bool(status.get("sessionValid")),
            claim=self._bound_claim(backup.session, status.get("pvcUID")),
            snapshot_class=snapshot_class,
        )

    def _bound_claim(self, session: Key, uid: str | None) -> str | None:
        """Return the name of the PVC that a session uses, as its status has it, if it is bound."""
        pvc = self._cache.pvcs.objects.get(object_key(session))
        if pvc is None or pvc["metadata"]["uid"] != uid or is_terminating(pvc):
            return None
        bound = pvc.get("status", {}).get("phase") == "Bound"
        return str(pvc["metadata"]["name"]) if bound else None

    def _progress_of(self, backup: Backup) -> Progress:
        uid, progress = self._progress.get(backup.key, (backup.uid, Progress()))
        return progress if uid == backup.uid else Progress()

    def _set_progress(self, backup: Backup, progress: Progress) -> None:
        self._progress[backup.key] = backup.uid, progress

    async def _write(
        self, controller: Controller, backup: Backup, status: BackupStatus
    ) -> Backup | None:
        """Write a status unless it is the same; return the backup, None if it is gone."""
        if status == backup.status:
            return backup
        begins = status.attempts > backup.status.attempts
        if begins:
            self._beginning.add(backup.key)
        try:
            written = await self._patch(
                controller,
                backup,
                [{"op": "add", "path": "/status", "value": status.dump()}],
                "/status",
            )
        finally:
            self._beginning.discard(backup.key)
        if written is None:
            return None
        if begins and status.key is not None:  # nobody else writes below a new key
            before = self._progress_of(backup)
            archive = Archive() if backup.status.key is None else before.archive
            self._set_progress(backup, Progress(outdated=before.outdated, archive=archive))
        _observe(backup, status)
        return written

    async def _patch(
        self, controller: Controller, backup: Backup, operations: list[Manifest], sub: str = ""
    ) -> Backup | None:
        """Patch a backup as it was read; raise ``Conflict`` if it has changed since."""
        tests = objects.unchanged_since(backup.uid, backup.version)
        with controller.writing():
            obj = await controller.kube.patch(BACKUPS, *backup.key, [*tests, *operations], sub)
        if obj is None:
            return None
        self._backups.informer.upsert(obj)
        return parse_backup(obj)

    def _note_failure(self, backup: Backup, failure: Problem, report: Report | None) -> None:
        """Wait before the next attempt; what the pod has reported so far is of this one."""
        wait = plan.backoff(backup.status) * random.uniform(0.8, 1.2)  # noqa: S311
        progress = self._progress_of(backup)
        position = None if report is None else Position(report.started_at, report.seq)
        self._set_progress(
            backup,
            Progress(
                outdated=position or progress.outdated,
                archive=progress.archive,
                problem=failure,
                retry=Backoff(backup.status.attempts, datetime.now(UTC) + wait),
            ),
        )
        log.warning(
            "an attempt of backup %s failed; trying again in %.0f s",
            backup.name,
            wait.total_seconds(),
            extra={**_extra(backup), "attempts": backup.status.attempts},
        )
        self._queue.add(backup.key)

    # --- actions ----------------------------------------------------------------------------------

    async def _execute(
        self,
        controller: Controller,
        backup: Backup,
        action: plan.Action,
        watcher: ReportWatcher | None,
        report: Report | None,
    ) -> None:
        try:
            await self._act(controller, backup, action, watcher, report)
        except StoreError as error:
            progress = self._progress_of(backup)
            problem = Problem(BackupReason.STORE_UNAVAILABLE, str(error))
            retry = next_backoff(progress.retry)
            self._set_progress(backup, replace(progress, problem=problem, retry=retry))
            log.warning(
                "the store did not do what a backup needs; trying again",
                extra={**_extra(backup), "error": str(error)},
            )
        self._queue.add(backup.key)

    async def _act(
        self,
        controller: Controller,
        backup: Backup,
        action: plan.Action,
        watcher: ReportWatcher | None,
        report: Report | None,
    ) -> None:
        match action:
            case plan.AddFinalizer() | plan.RemoveFinalizer():
                add = isinstance(action, plan.AddFinalizer)
                await self._patch(controller, backup, _finalizer_patch(backup.finalizers, add=add))
                return
            case plan.Look(key):
                assert self._store is not None
                archive = await self._store.look(key)
                progress = replace(self._progress_of(backup), archive=archive)
            case plan.DeleteArchive(key):
                assert self._store is not None
                controller.kube.check_fence()
                await self._store.delete(key)
                progress = replace(self._progress_of(backup), deleted=True)
                log.info("archive of backup %s deleted", backup.name, extra=_extra(backup))
            case plan.Complete(key, manifest):
                assert self._store is not None
                size = (await self._store.look(key)).size
                if size != manifest.size:
                    has = "no archive" if size is None else f"{size} bytes"
                    message = f"The store has {has}; {manifest.size} bytes were uploaded."
                    failure = Problem(BackupReason.UPLOAD_FAILED, message)
                    self._note_failure(backup, failure, report)
                    return
                controller.kube.check_fence()
                await self._store.write_manifest(key, manifest)
                archive = Archive(size, manifest, has_manifest=True)
                progress = replace(self._progress_of(backup), archive=archive)
            case plan.CopyArchive(source, key, manifest):
                progress = await self._copy(controller, backup, source, key, manifest)
            case plan.CreateSnapshot() | plan.LookAtSnapshot():
                progress = await self._observe_snapshot(controller, backup, action)
                self._set_progress(backup, progress)
                return
            case plan.Order(key, recipients):
                if watcher is None or report is None:
                    return
                controller.kube.check_fence()
                try:
                    await self._order(watcher, backup, key, recipients)
                except REQUEST_ERRORS as error:
                    message = f"The session's pod was not asked: {describe_error(error)}."
                    failure = Problem(BackupReason.UPLOAD_FAILED, message)
                    self._note_failure(backup, failure, report)
                    return
                progress = replace(
                    self._progress_of(backup),
                    ordered=Ordered(datetime.now(UTC), report.started_at),
                )
        self._set_progress(backup, replace(progress, problem=None, retry=Backoff()))

    async def _copy(
        self,
        controller: Controller,
        backup: Backup,
        source: str,
        key: str,
        manifest: ArchiveManifest,
    ) -> Progress:
        """Copy an archive, its manifest last; return what is known then. Raise ``StoreError``."""
        assert self._store is not None
        progress = self._progress_of(backup)
        controller.kube.check_fence()
        if not await self._store.copy(source, key):
            return replace(progress, copied=(source, 0))
        size = (await self._store.look(key)).size
        controller.kube.check_fence()
        if size is None:
            raise StoreError("The store does not have what it has copied.")
        if size != manifest.size:
            await self._store.delete(key)
            return replace(progress, copied=(source, size))
        await self._store.write_manifest(key, manifest)
        log.info(
            "archive of namespace %s copied for backup %s",
            source.partition("/")[0],
            backup.name,
            extra=_extra(backup),
        )
        return replace(progress, archive=Archive(size, manifest, has_manifest=True))

    async def _observe_snapshot(
        self,
        controller: Controller,
        backup: Backup,
        action: plan.CreateSnapshot | plan.LookAtSnapshot,
    ) -> Progress:
        """Create a VolumeSnapshot, or look at it; return what is known then."""
        progress, kube = self._progress_of(backup), controller.kube
        obj = None
        try:
            if isinstance(action, plan.CreateSnapshot):
                manifest = make_snapshot(backup, action.name, action.claim, action.class_name)
                with contextlib.suppress(Conflict), controller.writing():  # it is there already
                    obj = await kube.create(VOLUME_SNAPSHOTS, manifest)
            if obj is None:
                obj = await kube.get(VOLUME_SNAPSHOTS, backup.namespace, action.name)
        except Rejected as error:
            problem, retry = await self._why_rejected(kube, error), next_backoff(progress.retry)
            return replace(progress, problem=problem, retry=retry)
        snapshot = None if obj is None else parse_snapshot(obj)
        return replace(
            progress,
            observed=Observed(datetime.now(UTC), snapshot),
            was_created=progress.was_created or snapshot is not None,
            problem=None,
            retry=Backoff(),
        )

    async def _why_rejected(self, kube: KubeClient, error: Rejected) -> Problem:
        served = True
        with contextlib.suppress(Rejected):  # where the operator may not even ask
            served = await kube.serves(VOLUME_SNAPSHOTS)
        if served:
            message = f"The API server does not let the operator take VolumeSnapshots: {error}"
            if isinstance(error, Forbidden):
                return Problem(BackupReason.SNAPSHOTS_FORBIDDEN, message)
            return Problem(BackupReason.SNAPSHOT_FAILED, message)
        message = (
            "The cluster has no VolumeSnapshots: its CSI driver has to support them, and the CRDs "
            "and the controller of kubernetes-csi/external-snapshotter have to be installed."
        )
        return Problem(BackupReason.SNAPSHOTS_NOT_SUPPORTED, message)

    async def _order(
        self, watcher: ReportWatcher, backup: Backup, key: str, recipients: tuple[str, ...]
    ) -> None:
        """Ask the session's pod for an upload. Raise ``StoreError`` and ``REQUEST_ERRORS``."""
        assert self._store is not None
        url = await self._store.sign_put(key)
        order = BackupOrder(id=backup.uid, url=SecretStr(url), recipients=list(recipients))
        body = order.dump() | {"url": order.url.get_secret_value()}
        timeout = aiohttp.ClientTimeout(total=ORDER_TIMEOUT)
        async with watcher.pod.request("PUT", "/v1/backup", json=body, timeout=timeout) as response:
            response.raise_for_status()


def _finalizer_patch(present: tuple[str, ...], *, add: bool) -> list[Manifest]:
    path = "/metadata/finalizers"
    if not add:
        index = present.index(names.BACKUP_FINALIZER)
        return [{"op": "remove", "path": f"{path}/{index}"}]
    if present:
        return [{"op": "add", "path": f"{path}/-", "value": names.BACKUP_FINALIZER}]
    return [{"op": "add", "path": path, "value": [names.BACKUP_FINALIZER]}]


def _observe(backup: Backup, after: BackupStatus) -> None:
    """Count and log a backup that has come to its end."""
    if after.phase is backup.status.phase or after.phase not in FINAL:
        return
    completed = after.phase is BackupPhase.COMPLETED
    metrics.BACKUPS.labels("completed" if completed else "failed").inc()
    extra = {**_extra(backup), "reason": after.reason, "size": after.size}
    level = logging.INFO if completed else logging.WARNING
    log.log(level, "backup %s is %s", backup.name, after.phase, extra=extra)


def _extra(backup: Backup) -> dict[str, str]:
    extra = {"namespace": backup.namespace, "backup": backup.name}
    if (wanted := backup.spec.import_from) is not None:
        return {**extra, "source": f"{wanted.namespace}/{wanted.name}"}
    return {**extra, "session": backup.session_name}
