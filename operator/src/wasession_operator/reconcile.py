"""One reconciliation of a session: gather the facts, plan, act."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import aiohttp
from wasession_api import names
from wasession_api.kube.client import (
    NAMESPACES,
    PODS,
    SESSIONS,
    VOLUME_SNAPSHOTS,
    KubeClient,
    Rejected,
)
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, condition, key_of
from wasession_api.session_pod.client import SessionPodClient, base_url
from wasession_api.session_pod.report import Report
from wasession_api.session_pod.token_derivation import derive_token, derive_tokens, token_id
from wasession_api.v1alpha1 import (
    BackupMethod,
    BootstrapState,
    ClassReference,
    ConditionType,
    Phase,
    Reason,
    Revision,
    Status,
    UpdateStrategy,
)

from wasession_operator import metrics, objects, plan
from wasession_operator.action_executor import ActionExecutor
from wasession_operator.backups.store import Store
from wasession_operator.cache_transform import ANNOTATION_SELECTED_NODE
from wasession_operator.cluster_cache import ClusterCache, login_of, noted_login, object_key
from wasession_operator.login_survey import LoginCopy, LoginSurvey, restored_at
from wasession_operator.master_key import MasterKey
from wasession_operator.plan import Facts, Plan, Session, actions
from wasession_operator.plan.bootstrap import has_yielded, is_restoring, is_unsure
from wasession_operator.plan.class_rollout import assign
from wasession_operator.plan.facts import LoginHolder, NamedBackup, Violation
from wasession_operator.plan.logout import pending_request
from wasession_operator.plan.manifests import annotations_of, class_of, is_terminating, revision_of
from wasession_operator.plan.parse import own_spec, parse_session
from wasession_operator.plan.results import attempt
from wasession_operator.plan.session_class import SessionClass, find_violation
from wasession_operator.plan.storage import expects_login
from wasession_operator.reconcile_state import ReconcileState
from wasession_operator.report_watcher import ReportWatcher
from wasession_operator.revisions import Revisions
from wasession_operator.settings import Settings
from wasession_operator.start_budget import StartBudget, StartLimits, share
from wasession_operator.status_writer import StatusWriter
from wasession_operator.update_permits import Board, UpdatePermits

log = logging.getLogger(__name__)
STARTING = {Phase.PENDING, Phase.STARTING, Phase.RESTORING, Phase.SYNCING}
POD_NEEDS = (actions.ApplySecret, actions.ApplyNetworkPolicy, actions.CreatePvc)
NAMESPACE_RECHECK = timedelta(seconds=30)
UNWATCHED_RECHECK = timedelta(seconds=10)
CLASSES_UNKNOWN = "The operator cannot list the WhatsAppSessionClasses: {error}"
POLICIES_UNKNOWN = "The operator cannot watch the NetworkPolicies: {error}"
DELETION_DEBOUNCE = 30.0  # seconds from deletionTimestamp; a graceful stop takes as long


@dataclass(frozen=True)
class Result:
    """When to reconcile again without an event, and whether a deleted session is done with."""

    requeue_after: timedelta | None = None
    done: bool = False


class Reconciler:
    """Reconciles sessions of one shard, and has the permits that they need to start or update."""

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        http: aiohttp.ClientSession,
        cache: ClusterCache,
        master_key: MasterKey,
        enqueue: Callable[[Key], None],
        shard: int = 0,
        board: Board | None = None,
        store: Store | None = None,
        is_admitted: Callable[[str, str, Key], bool] = lambda *_: False,
    ) -> None:
        """``is_admitted``: whether the rollout of a class to a revision has reached a session."""
        limits = StartLimits(
            settings.max_concurrent_starts_per_node, settings.max_concurrent_starts_per_zone
        )
        self.starts = StartBudget(share(limits, shard, settings.shards), enqueue)
        for name, zone in cache.start_nodes.items():
            self.starts.set_node(name, zone)
        self.updates = UpdatePermits(settings.max_concurrent_updates, enqueue, cache.updates, board)
        self._revisions = Revisions(settings)
        self._is_admitted = is_admitted
        self._settings = settings
        self._kube = kube
        self._http = http
        self._cache = cache
        self._enqueue = enqueue
        self._master_key = master_key
        self._executor = ActionExecutor(settings, kube, cache, master_key, enqueue, store)
        self._status_writer = StatusWriter(kube, cache)
        self._survey = LoginSurvey(kube, cache.namespaces, cache.rejection)

    async def close(self, timeout: float) -> None:
        """Emit what is left of Events within a time in seconds, and drop the rest."""
        await self._status_writer.close(timeout)

    def forget(self, key: Key) -> None:
        """Release the permits of a session that is gone, or cannot be reconciled."""
        self.starts.release(key)
        self.updates.release(key)

    def expect_start(self, key: Key, body: Manifest) -> None:
        """Let a session hold or await the permit that it needs by its status, until reconciled."""
        status, spec = body.get("status") or {}, body.get("spec") or {}
        if spec.get("suspend") or status.get("hibernation") or is_terminating(body):
            return
        name, pods, pvcs = object_key(key), self._cache.pods.objects, self._cache.pvcs.objects
        if name not in pods:
            connected = status.get("lastConnected")
            last = datetime.fromisoformat(connected) if connected else None
            urgency = _urgency(bool(status.get("sessionValid")), last)
            self.starts.request(key, urgency, _start_node(None, pvcs.get(name)))
        elif status.get("phase") in STARTING:
            self.starts.adopt(key, _start_node(pods[name], pvcs.get(name)))

    async def reconcile(self, state: ReconcileState) -> Result:
        """Bring a session one step closer to its spec. Raise what its API requests raise."""
        if not self._cache.is_served(state.key[0]):
            self.forget(state.key)  # for sessions of namespaces that are served
            return await self._release(state)
        try:
            return await self._reconcile(state)
        except Rejected:
            self.starts.release(state.key)  # for sessions that can go on
            with contextlib.suppress(Rejected):  # the right to read namespaces may be missing too
                released = await self._release(state)
                if released.done:
                    return released
            raise

    async def _reconcile(self, state: ReconcileState) -> Result:
        body = self._cache.sessions.get(state.key)
        if body is None:
            return Result()
        state.observe_version(body["metadata"]["resourceVersion"])
        session_class = self._cache.classes.of(body)
        revision = self._find_revision(state, body, session_class)
        of_class = None
        if session_class is not None:
            name = None if revision is None else revision.name
            of_class = session_class.uid, session_class.generation, name
        state.observe_generations(body["metadata"].get("generation", 0), of_class)
        session, problem = parse_session(body, state.written, session_class, revision)
        if problem is not None and session.deleted_at is None:
            return await self._reject_spec(session, body, state, problem)
        facts = await self._gather_facts(state, session, body, session_class)
        planned = plan.plan(session, facts, self._settings)
        wait = await self._apply(session, body, state, planned, facts)
        if wait is None:  # count only persisted status towards the limits
            self._update_permits(state.key, session, facts, planned)
        result = _result(planned, wait)
        if actions.RemoveFinalizer in state.refusals:
            result = replace(result, done=False)
        if self._has_unwatched(state.key, facts) and not result.done:
            recheck = min(result.requeue_after or UNWATCHED_RECHECK, UNWATCHED_RECHECK)
            return Result(recheck)
        if result.done:
            _report_linked_device(session, planned.status, state)
        return result

    async def _release(self, state: ReconcileState) -> Result:
        """Let a deleted session of a terminating namespace go, whatever its objects.

        With the namespace goes the role that allows to see and change them. They go with it too,
        and nothing new can be created in it: not even a session of the same name.
        """
        body = self._cache.sessions.get(state.key)
        if body is None or not is_terminating(body):
            return Result()
        namespace = await self._kube.get(NAMESPACES, None, state.key[0])
        if namespace is not None and not is_terminating(namespace):
            return Result(NAMESPACE_RECHECK)
        session, _ = parse_session(body, state.written)
        if names.FINALIZER in session.finalizers:
            facts = Facts(datetime.now(UTC), refusals=state.refusals)
            step = attempt(actions.RemoveFinalizer(session.finalizers), facts)
            for action in step.actions:
                await self._executor.execute(session, state, action)
            if actions.RemoveFinalizer in state.refusals:
                return Result(step.requeue_after)
            _report_linked_device(session, session.status, state)
        return Result(done=True)

    async def _reject_spec(
        self, session: Session, body: Manifest, state: ReconcileState, problem: str
    ) -> Result:
        self.starts.release(state.key)
        status = plan.invalid_spec_status(session, datetime.now(UTC), problem)
        planned = Plan([], status, plan.make_events(session.status, status))
        wait = await self._status_writer.write(session, body, state, planned, None)
        return _result(planned, wait)

    # --- facts ------------------------------------------------------------------------------------

    async def _gather_facts(
        self,
        state: ReconcileState,
        session: Session,
        body: Manifest,
        session_class: SessionClass | None,
    ) -> Facts:
        key, cache = state.key, self._cache
        status, state.token_epoch = session.status, session.status.token_epoch
        pod = await self._read(cache.pods, key, expected=status.pod_uid is not None)
        has_login = bool(status.session_valid) or expects_login(session)
        pvc = await self._read(cache.pvcs, key, expected=has_login or status.pvc_uid is not None)
        if pvc is not None and _is_taken_over(session, body, pvc):
            pvc = await cache.pvcs.read(object_key(key))  # whose login it has: that decides
        pod, pvc = _expect_deletion(pod, state), _expect_deletion(pvc, state)
        state.deleted.intersection_update(
            obj["metadata"]["uid"] for obj in (pod, pvc) if obj is not None
        )
        self._watch_report(state, pod)
        watcher = state.report_watcher
        violation = self._find_rejection(key[0]) or self._find_violation(
            session, body, session_class, has_claim=pvc is not None
        )
        may_start = self._wants_start(session, pod, violation) and self.starts.request(
            key,
            _urgency(bool(status.session_valid), status.last_connected),
            _start_node(pod, pvc),
        )
        report = watcher.report if watcher else None
        holders, gap = await self._login_holders(session, body, pod, pvc, report)
        template = self._template(state, session)
        scope = self._update_scope(session, pod, report, status, template)
        policies = cache.network_policies
        class_name = None if session_class is None else session_class.name
        if pod is not None:
            class_name = class_of(pod) or class_name
        return Facts(
            now=datetime.now(UTC),
            pod=pod,
            pvc=pvc,
            template=template,
            token_ids=self._token_ids(session),
            secret_applied=state.secret_applied,
            node=await cache.node_of(pod) if pod else None,
            report=report,
            silent_since=watcher.silent_since if watcher else None,
            unauthorized=watcher is not None and watcher.unauthorized,
            watch_error=watcher.error if watcher else None,
            may_start=may_start if self.starts.is_open else None,
            awaited_budget=self.starts.bottleneck(key),
            may_update=self.updates.is_held(key, scope),
            may_roll_out=self._may_roll_out(session),
            rollout_halted=self.updates.is_halted(scope),
            accepted_template=state.fresh_template(),
            failures=state.pod_failures,
            refusals=dict(state.refusals),
            backup=await self._look_at_snapshot(
                session, self._named_backup(session, session_class), pvc
            ),
            login_holders=holders,
            login_survey_gap=gap,
            backup_running=cache.backups.is_running(key),
            last_backup=cache.backups.last_completed(key),
            account_shared_with=_describe(cache.sharing_account(key), key[0]),
            conflicting_session=cache.conflicting_session(key),
            session_class=_reference(session_class),
            class_violation=violation,
            network_policy=None if policies is None else policies.of(key[0], class_name),
        )

    def _named_backup(
        self, session: Session, session_class: SessionClass | None = None
    ) -> NamedBackup | None:
        """Return the backup that the session's volume is to begin with."""
        if not is_restoring(session):
            return None
        assert session.spec.bootstrap is not None
        name = session.spec.bootstrap.from_backup.name
        backup = self._cache.backups.get(session.namespace, name)
        if backup is None or backup.is_terminating:
            return None
        source, cluster = backup.status.source, self._cache.backups.cluster
        is_of_cluster = source is not None and bool(cluster) and source.cluster == cluster
        is_served = (
            source is not None
            and (backup.is_made_here or is_of_cluster)
            and self._cache.is_served(source.namespace)
        )
        limit = None if session_class is None else session_class.spec.limits.storage
        return NamedBackup(
            backup.uid, backup.status, is_served, backup.spec.method, size_limit=limit
        )

    async def _look_at_snapshot(
        self, session: Session, backup: NamedBackup | None, pvc: Manifest | None
    ) -> NamedBackup | None:
        """Return a backup, and whether the VolumeSnapshot that a new PVC needs is missing."""
        if backup is None or backup.method is not BackupMethod.VOLUME_SNAPSHOT or pvc is not None:
            return backup
        name = backup.status.volume_snapshot_name
        if name is None:
            return backup
        try:
            snapshot = await self._kube.get(VOLUME_SNAPSHOTS, session.namespace, name)
        except Rejected:
            return backup  # not known; without it, the PVC stays Pending, and an event says why
        return replace(backup, snapshot_missing=snapshot is None or is_terminating(snapshot))

    async def _login_holders(
        self,
        session: Session,
        body: Manifest,
        pod: Manifest | None,
        pvc: Manifest | None,
        report: Report | None,
    ) -> tuple[tuple[LoginHolder, ...], str | None]:
        """Return the other sessions with the login that the session has, or is to get.

        The second value is why there may be more of them, if they were listed to be sure.

        Once the session has written that it restores, nothing cached proves that they are stopped.
        The same goes for one that the others may have seen stopped, if the operator serves some
        namespaces alone: the watch of another one may be behind, or there is none.
        """
        cache, key = self._cache, (session.namespace, session.name)
        backup, login = self._named_backup(session), login_of(body)
        if backup is not None and backup.status.source is not None:
            login = backup.status.source.login_id
        elif login is None:  # of a volume that it has taken over
            login = noted_login(pvc) if report is None else report.login_id
        if login is None:
            return (), None
        holders = sorted(map(self._cached_holder, cache.with_login(login, key)), key=_latest_first)
        wants_start = pod is None and session.deleted_at is None and not session.spec.suspend
        is_looked_for = _is_last_look(session.status, backup) or (
            None not in cache.namespaces and _was_stopped(session.status)
        )
        if wants_start and is_looked_for and not _is_blocked(session.status, holders):
            return await self._proven_holders(key, login, backup)
        return tuple(holders), None

    def _cached_holder(self, key: Key) -> LoginHolder:
        session, has_pod = self._cache.sessions[key], object_key(key) in self._cache.pods.objects
        uid, at = session["metadata"]["uid"], restored_at(session)
        return LoginHolder("/".join(key), uid, at, self._cache.is_stopped(key), has_pod)

    async def _proven_holders(
        self, key: Key, login: str, backup: NamedBackup | None
    ) -> tuple[tuple[LoginHolder, ...], str | None]:
        """Return the same as the API server has it now: nothing cached proves anything.

        The pod of the backup's own session may outlive it, if somebody has removed its finalizer.
        """
        copies, gap = await self._survey.copies_of(login)
        holders = [await self._proven_holder(copy) for copy in copies if copy.key != key]
        source = None if backup is None else backup.status.source
        if source is not None:
            origin = source.namespace, source.session_name
            is_other = origin != key and self._cache.is_served(origin[0])
            if is_other and not await self._exists(origin):
                has_pod = await self._has_pod(origin)
                holders.append(LoginHolder("/".join(origin), "", None, not has_pod, has_pod))
        return tuple(sorted(holders, key=_latest_first)), gap

    async def _proven_holder(self, copy: LoginCopy) -> LoginHolder:
        """Return what is proven of a session: in namespaces not served, its word has to do."""
        is_served = self._cache.is_served(copy.key[0])
        has_pod = await self._has_pod(copy.key) if is_served else not copy.has_given_way
        is_stopped = copy.has_given_way and not has_pod
        name = "/".join(copy.key)
        return LoginHolder(name, copy.uid, copy.restored_at, is_stopped, has_pod, is_served)

    async def _exists(self, session: Key) -> bool:
        return await self._kube.get(SESSIONS, *session, metadata=True) is not None

    async def _has_pod(self, session: Key) -> bool:
        return await self._kube.get(PODS, *object_key(session), metadata=True) is not None

    def _find_rejection(self, namespace: str) -> Violation | None:
        """Return what the API server does not let the operator know that a start depends on.

        Classes that are known count even if they cannot be watched any more. Without a watch of
        NetworkPolicies, a pod could start although its policy is gone.
        """
        classes, policies = self._cache.classes, self._cache.network_policies
        if (error := classes.rejection) is not None:
            return Violation(Reason.CLASS_NOT_FOUND, CLASSES_UNKNOWN.format(error=error))
        if policies is not None and (error := policies.informer.rejection(namespace)) is not None:
            return Violation(Reason.NETWORK_POLICY_FAILED, POLICIES_UNKNOWN.format(error=error))
        return None

    def _find_violation(
        self,
        session: Session,
        body: Manifest,
        session_class: SessionClass | None,
        *,
        has_claim: bool,
    ) -> Violation | None:
        """Return why the session's class does not let it start."""
        stored = body.get("spec") or {}
        ahead = self._cache.classes.sessions_ahead(key_of(body), body)
        return find_violation(
            stored, session.namespace, session_class, session.spec, ahead, has_claim=has_claim
        )

    def _wants_start(
        self, session: Session, pod: Manifest | None, violation: Violation | None
    ) -> bool:
        """Return whether to ask for a permit to start."""
        if session.deleted_at is not None or session.spec.suspend:
            return False
        if plan.is_asleep(session, datetime.now(UTC)):
            return False
        return pod is None and violation is None

    def _find_revision(
        self, state: ReconcileState, body: Manifest, session_class: SessionClass | None
    ) -> Revision | None:
        """Return the revision of its class that the session's pod should be of."""
        if session_class is None or session_class.error is not None:
            return None
        if (rollout := session_class.spec.rollout) is None:
            return None
        target, name = self._revisions.of(session_class), session_class.name
        stored, pod = body.get("spec") or {}, self._cache.pods.objects.get(object_key(state.key))
        current = (body.get("status") or {}).get("revision")
        if state.written is not None:
            current = state.written.revision
        strategy = stored.get("updateStrategy") or session_class.spec.template.update_strategy
        keeps_pod = (
            pod is not None
            and not is_terminating(pod)
            and revision_of(pod) == current
            and class_of(pod) in (None, name)
            and annotations_of(pod).get(names.ANNOTATION_OWN_SPEC) == own_spec(stored)
        )
        return assign(
            self._cache.classes.rollout(name),
            target.name,
            current,
            keeps_pod=keeps_pod,
            is_admitted=self._is_admitted(name, target.name, state.key),
            on_delete=strategy == UpdateStrategy.ON_DELETE,
            is_paused=rollout.paused,
        )

    def _may_roll_out(self, session: Session) -> bool:
        name, revision = session.spec.class_name, session.revision
        if name is None or revision is None:
            return False
        return self._is_admitted(name, revision, (session.namespace, session.name))

    def _template(self, state: ReconcileState, session: Session) -> str:
        """Return the hash of the pod's template; building it takes a tenth of a pass."""
        if state.template is None:
            state.template = objects.desired_hash(
                session.namespace, session.name, session.uid, session.spec_of_pod, self._settings
            )
        return state.template

    def _update_scope(
        self,
        session: Session,
        pod: Manifest | None,
        report: Report | None,
        status: Status,
        template: str,
    ) -> plan.Scope:
        """Return the scope whose permits count; without RollingUpdate, none is asked for."""
        if session.spec.update_strategy is not UpdateStrategy.ROLLING_UPDATE:
            pod = None
        return plan.update_scope(session, pod, report, status, template)

    async def _read(self, informer: Informer, key: Key, *, expected: bool) -> Manifest | None:
        """Return the session's pod or claim.

        One that the cache should have but has not may only have lost its labels: the informer sees
        that as a deletion. Nothing is believed to be gone before the API server says so.
        """
        obj = informer.objects.get(object_key(key))
        if obj is not None or not expected:
            return obj
        return await informer.read(object_key(key))

    def _has_unwatched(self, key: Key, facts: Facts) -> bool:
        """Return whether an object was read that no informer has, and so changes without events."""
        cache, name = self._cache, object_key(key)
        read = ((facts.pod, cache.pods), (facts.pvc, cache.pvcs))
        return any(obj is not None and name not in informer.objects for obj, informer in read)

    def _watch_report(self, state: ReconcileState, pod: Manifest | None) -> None:
        """Watch the pod at its present address, until it is gone even while it terminates."""
        address = (pod or {}).get("status", {}).get("podIP")
        base = base_url(address) if address else None
        if state.report_watcher is not None and state.report_watcher.pod.base != base:
            state.stop_watching()
        if state.report_watcher is None and base is not None:
            state.report_watcher = ReportWatcher(
                SessionPodClient(self._http, base, partial(self._tokens, state)),
                state.uid,
                partial(self._enqueue, state.key),
                state.log_extra,
            )
        if state.report_watcher is not None and condition(pod, "Ready").get("status") == "True":
            state.report_watcher.pod_is_ready()

    async def _tokens(self, state: ReconcileState) -> list[str]:
        """Return the tokens that the session's pod may accept."""
        key = self._master_key.of(state.key[0])
        return derive_tokens(key, state.uid, state.token_epoch)

    def _token_ids(self, session: Session) -> tuple[str, str]:
        """Return what identifies the tokens of the session's epoch and of the next one."""
        key, epoch = self._master_key.of(session.namespace), session.status.token_epoch
        present, following = (
            token_id(derive_token(key, session.uid, number)) for number in (epoch, epoch + 1)
        )
        return present, following

    # --- actions ----------------------------------------------------------------------------------

    async def _apply(
        self,
        session: Session,
        body: Manifest,
        state: ReconcileState,
        planned: Plan,
        facts: Facts,
    ) -> float | None:
        """Execute the actions and write the status.

        Return None, or the seconds after which to try again when the status is debounced.

        New objects are created first; the next pass, which follows at once, reports them. What
        happens to existing objects is written to the status first, so that another replica knows.
        """
        kinds = tuple(type(action) for action in planned.actions)
        new = session.status.phase is None and facts.pod is None
        creates = actions.CreatePod in kinds or (new and actions.CreatePvc in kinds)
        if creates and not _relies_on_status(session, planned):
            await self._execute(session, state, planned)
            return None
        wait = _deferral(session, planned, facts.now)
        if wait is None:
            wait = await self._status_writer.write(session, body, state, planned, facts.report)
        if not wait or not _relies_on_status(session, planned):
            await self._execute(session, state, planned)
        return wait or None

    async def _execute(self, session: Session, state: ReconcileState, planned: Plan) -> None:
        """Create the objects that a pod needs concurrently, then execute the rest in order.

        If one of those is refused, or not as it was planned for, stop there.
        """

        async def execute(action: plan.Action) -> None:
            await self._executor.execute(session, state, action)

        needs = [action for action in planned.actions if isinstance(action, POD_NEEDS)]
        await asyncio.gather(*map(execute, needs))
        if any(type(a) in state.refusals or type(a) in state.outdated for a in needs):
            return
        for action in planned.actions:
            if action not in needs:
                await execute(action)

    def _update_permits(self, key: Key, session: Session, facts: Facts, planned: Plan) -> None:
        """Hold permits while the session starts or updates; release those of a stalled one."""
        status = planned.status
        degraded = status.condition(ConditionType.DEGRADED)
        stalled = degraded is not None and degraded.status == "True"
        creates_pod = any(isinstance(action, actions.CreatePod) for action in planned.actions)
        starting = status.phase in STARTING and not session.spec.suspend
        starts = facts.pod is not None and starting and not stalled
        if creates_pod or starts:
            self.starts.adopt(key, _start_node(facts.pod, facts.pvc))
        elif self.starts.is_open and _reason(status, ConditionType.READY) != Reason.START_QUEUED:
            self.starts.release(key)
        scope = self._update_scope(session, facts.pod, facts.report, status, facts.template)
        if plan.is_updating(status):
            failed = status.update is not None and status.update.failed
            if self.updates.adopt(key, scope, failed=failed):
                log.error(
                    "rollout halted: session did not recover from its update",
                    extra={"namespace": key[0], "session": key[1], "scope": "/".join(scope)},
                )
        elif (
            not facts.may_roll_out
            and _reason(status, ConditionType.PROGRESSING) == Reason.UPDATE_PENDING
            and session.spec.update_strategy is UpdateStrategy.ROLLING_UPDATE
        ):
            if self.updates.request(key, scope) and not facts.may_update:
                self._enqueue(key)
        else:
            self.updates.release(key)


def _report_linked_device(session: Session, status: Status, state: ReconcileState) -> None:
    """Report a requested logout that was not possible any more.

    The session's own Event says so too, but goes with its namespace.
    """
    requested = session.spec.logout_on_delete or pending_request(session, None) is not None
    if not requested or not status.session_valid:
        return
    metrics.DEVICES_LEFT_LINKED.inc()
    log.error(
        "session %s was deleted without the requested logout; unlink its device on the phone",
        session.name,
        extra=state.log_extra,
    )


def _reference(session_class: SessionClass | None) -> ClassReference | None:
    if session_class is None:
        return None
    return ClassReference(name=session_class.name, generation=session_class.generation)


def _describe(session: Key | None, namespace: str) -> str | None:
    """Return what to call another session; its name is nobody's business in other namespaces."""
    if session is None:
        return None
    own = session[0] == namespace
    return f"WhatsAppSession {session[1]}" if own else "A session of another namespace"


def _reason(status: Status, kind: ConditionType) -> str | None:
    present = status.condition(kind)
    return present.reason if present is not None else None


def _expect_deletion(obj: Manifest | None, state: ReconcileState) -> Manifest | None:
    """Return an object that was deleted as terminating, even before its informer knows."""
    if obj is None or is_terminating(obj) or obj["metadata"]["uid"] not in state.deleted:
        return obj
    metadata = {**obj["metadata"], "deletionTimestamp": datetime.now(UTC).isoformat()}
    return {**obj, "metadata": metadata}


def _relies_on_status(session: Session, planned: Plan) -> bool:
    """Return whether the status alone explains an action to another replica, or to a user."""
    if session.deleted_at is not None:
        return any(isinstance(action, actions.RemoveFinalizer) for action in planned.actions)
    if planned.status.token_epoch != session.status.token_epoch:
        return True
    return any(isinstance(action, actions.DeletePod | actions.Logout) for action in planned.actions)


def _deferral(session: Session, planned: Plan, now: datetime) -> float | None:
    """Return the seconds for which not to write the status of a session that is being deleted.

    Most deletions are over by then. 0 when this one is; None to write now: what the operator or a
    user has to know is never deferred.
    """
    valid = planned.status.session_valid
    if session.deleted_at is None or planned.events or valid != session.status.session_valid:
        return None
    if planned.done:
        return 0.0
    left = (session.deleted_at - now).total_seconds() + DELETION_DEBOUNCE
    return left if left > 0 else None


def _is_taken_over(session: Session, body: Manifest, pvc: Manifest) -> bool:
    """Return whether a new session finds a claim that an earlier one has left behind."""
    claim, own = (obj["metadata"].get("creationTimestamp", "") for obj in (pvc, body))
    return session.status.phase is None and bool(claim < own)


def _is_last_look(status: Status, backup: NamedBackup | None) -> bool:
    """Return whether a session has written that it restores, and is about to."""
    own = status.bootstrap
    return backup is not None and own is not None and own.state is BootstrapState.RESTORING


def _was_stopped(status: Status) -> bool:
    """Return whether others may have seen the session stopped, by what it has written last."""
    waits = _reason(status, ConditionType.READY) == Reason.BACKUP_SOURCE_RUNNING
    gave_way = waits or has_yielded(status) or is_unsure(status)
    return status.phase in (None, Phase.SUSPENDED) or gave_way


def _is_blocked(status: Status, holders: Iterable[LoginHolder]) -> bool:
    """Return whether what is cached of the others keeps the session from starting already."""
    is_linked_here = bool(status.session_valid) and status.bootstrap is None
    return any(one.has_pod and (not is_linked_here or one.restored_at) for one in holders)


def _latest_first(holder: LoginHolder) -> tuple[float, str]:
    """Order sessions with one login: the one that was restored last has it."""
    at = holder.restored_at
    return -(at.timestamp() if at is not None else 0.0), holder.name


def _start_node(pod: Manifest | None, pvc: Manifest | None) -> str | None:
    """Return the node of a session's pod; before it has one, that of its volume, if it has one."""
    bound: str | None = None if pod is None else pod["spec"].get("nodeName")
    selected: str | None = (
        None
        if pvc is None
        else pvc["metadata"].get("annotations", {}).get(ANNOTATION_SELECTED_NODE)
    )
    return bound or selected


def _urgency(valid: bool, last_connected: datetime | None) -> tuple[bool, float]:
    """Sort valid logins before new sessions, and the most recently connected first."""
    return not valid, -last_connected.timestamp() if last_connected else 0.0


def _result(planned: Plan, wait: float | None) -> Result:
    """Requeue for the plan or the debounced status, whichever is sooner.

    A session is not done before its status has been written.
    """
    if wait is None:
        return Result(planned.requeue_after, planned.done)
    debounced = timedelta(seconds=wait)
    if planned.requeue_after is None:
        return Result(debounced)
    return Result(min(planned.requeue_after, debounced))
