"""Brings the facts about a session together, asks ``plan``, and has done what it says."""

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import UTC, datetime, timedelta
from functools import partial

import aiohttp
from pydantic import ValidationError
from wasession_api.kube.client import Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Key, Manifest, condition
from wasession_api.session_pod.tokens import tokens
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Spec, Status, UpdateStrategy

from wasession_operator import metrics, plan
from wasession_operator.action_executor import Effects, again
from wasession_operator.cluster_cache import Cluster, is_over, key_of, object_key, wishes
from wasession_operator.plan import Facts, Plan, Session, actions
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.priority_semaphore import Turns
from wasession_operator.reconcile_state import Memory
from wasession_operator.report_watcher import Follower
from wasession_operator.settings import Settings
from wasession_operator.status_writer import Statuses

log = logging.getLogger(__name__)
STARTING = {Phase.PENDING, Phase.STARTING, Phase.RESTORING, Phase.SYNCING}
WORKERS = 10  # sessions that are looked at at the same time
POD_FIRST = 60.0  # seconds: a session that lacks its pod goes before all others that have waited for less than this
UNCHANGED_LAST = 120.0  # seconds: the same for all others and those of which nothing new is known
TOGETHER = (actions.CreateSecret, actions.CreatePvc)  # what a pod needs
ENDS_WITHIN = 2.0  # seconds from a session's deletion, which Kubernetes notes in whole ones


class Operator:
    """All sessions. ``run`` it, and tell it of each with ``seen`` and ``gone``.

    Of whichever session something new is known, it is put into a queue, once; a few workers look at
    one after the other.
    """

    def __init__(self, settings: Settings, kube: KubeClient, http: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.memories: dict[Key, Memory] = {}
        self.cluster = Cluster(
            kube, settings.namespaces, self.wake, watch_nodes=settings.watch_nodes
        )
        self.starts = Turns(settings.max_concurrent_starts, self.wake)
        self.updates = Turns(settings.max_concurrent_updates, self.wake)
        self._http = http
        self._effects = Effects(settings, kube, self.cluster)
        self._statuses = Statuses(kube)
        self._queue: asyncio.PriorityQueue[tuple[float, int, Key, Memory]] = asyncio.PriorityQueue()
        self._numbers = (
            itertools.count()
        )  # of two in the queue that are due at the same time the earlier one comes first

    async def run(self) -> None:
        """Never returns. Nothing is looked at before all is known."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cluster.run())
            await self.cluster.synced()
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def close(self) -> None:
        for memory in self.memories.values():
            memory.unfollow()
        await self._statuses.close()

    def wake(self, key: Key) -> None:
        """Has a session looked at: something about it has changed."""
        memory = self.memories.get(key)
        if memory is not None:
            memory.wake()
            self._put(key, memory, 0.0 if self._is_urgent(key) else POD_FIRST)

    def wake_all(self) -> None:
        """Has every session looked at, when nothing else is to be done."""
        for key, memory in self.memories.items():
            memory.wake()
            self._put(key, memory, UNCHANGED_LAST)

    def _is_urgent(self, key: Key) -> bool:
        """Whether a session lacks its pod, and need not wait for its turn; or has a turn that others wait for."""
        lacks_pod = object_key(key) not in self.cluster.pods.objects
        return (lacks_pod and not self.starts.waits(key)) or self.starts.keeps_waiting(key)

    def _put(self, key: Key, memory: Memory, patience: float) -> None:
        """Into the queue, or further ahead in it. One that is being looked at comes after that."""
        assert memory.woken_at is not None
        due = memory.woken_at + patience
        if memory.working_since is None and (memory.due is None or due < memory.due):
            memory.due = due
            self._queue.put_nowait((due, next(self._numbers), key, memory))

    # --- the life of one session ------------------------------------------------------------------

    def seen(self, body: Manifest) -> None:
        """A session as the API server has it now."""
        key, before = key_of(body), self.cluster.sessions.get(key_of(body))
        self.cluster.session_seen(body)
        after = self.cluster.sessions[key]
        uid, memory = after["metadata"]["uid"], self.memories.get(key)
        if memory is not None and memory.uid != uid:
            self.gone(key, memory.uid)
        if key not in self.memories and not is_over(after):
            self.memories[key] = Memory(uid)
        memory = self.memories.get(key)
        ours = memory is not None and memory.seen(after["metadata"]["resourceVersion"])
        if (
            before is None
            or wishes(before) != wishes(after)
            or not (ours or before.get("status") == after.get("status"))
        ):
            self.wake(key)

    def gone(self, key: Key, uid: str) -> None:
        """A session is not there any more."""
        self.cluster.session_gone(key, uid)
        if (
            key in self.memories and self.memories[key].uid == uid
        ):  # no other session has the name already
            self._forget(key)

    def _forget(self, key: Key) -> None:
        """Nothing is left to be done about a session."""
        self.memories.pop(key).close()
        self.starts.leave(key)
        self.updates.leave(key)

    # --- one look at a session --------------------------------------------------------------------

    async def _work(self) -> None:
        """Looks at one session after the other. Never returns."""
        while True:
            _, _, key, memory = await self._queue.get()
            if (
                memory.due is not None and self.memories.get(key) is memory
            ):  # it has not been looked at, and is not gone
                await self._look_and_arrange(key, memory)
            self._queue.task_done()
            await asyncio.sleep(0)  # others have their turn in any case

    async def _look_and_arrange(self, key: Key, memory: Memory) -> None:
        """Looks at a session, and sees to it that it is looked at again when it has to be."""
        outcome = await self._look(key, memory)
        if self.memories.get(key) is not memory:  # it has ended meanwhile
            memory.unfollow()
            return
        if memory.alarm is not None:
            memory.alarm.cancel()
            memory.alarm = None
        if outcome is not None and outcome.done:
            self._forget(key)
        elif outcome is not None and outcome.requeue_after is not None:
            after = max(outcome.requeue_after.total_seconds(), 0.0)
            memory.alarm = asyncio.get_running_loop().call_later(after, self.wake, key)
        if memory.woken_at is not None:
            self.wake(key)

    async def _look(self, key: Key, memory: Memory) -> Plan | None:
        """One pass; None when the session is not there any more. Never raises: what failed is tried again."""
        metrics.WORKQUEUE_QUEUE_DURATION.observe(memory.begin())
        try:
            with metrics.RECONCILE_DURATION.time():
                return await self._reconcile(key, memory)
        except Exception as error:
            memory.errors = again(memory.errors)
            wait = max(
                memory.errors.wait(datetime.now(UTC)).total_seconds(),
                getattr(error, "retry_after", 0.0),
            )
            where = {
                "namespace": key[0],
                "session": key[1],
                "uid": memory.uid,
                "again_in": round(wait, 1),
            }
            if isinstance(error, Unavailable | Rejected | Conflict):
                log.warning("the API server did not do it", extra={**where, "error": str(error)})
            else:
                log.exception("reconciliation failed", extra=where)
            return Plan([], Status(), [], timedelta(seconds=wait))
        finally:
            memory.end()

    async def _reconcile(self, key: Key, memory: Memory) -> Plan | None:
        body = self.cluster.sessions.get(key)
        if body is None:
            return None
        memory.of(body["metadata"].get("generation", 0))
        memory.seen(body["metadata"]["resourceVersion"])
        session, problem = _read(body, memory.written)
        if problem is not None and session.deleted_at is None:
            return await self._refuse(session, body, memory, problem)
        facts = await self._facts(key, memory, session)
        result = plan.plan(session, facts, self.settings)
        wait = await self._carry_out(session, body, memory, result, facts)
        memory.errors = plan.Backoff()
        if wait is None:  # what is not written yet is not so for anybody else
            self._take_turns(key, session, facts, result)
        return _sooner(result, wait)

    async def _facts(self, key: Key, memory: Memory, session: Session) -> Facts:
        pod = _expected(self.cluster.pods.objects.get(object_key(key)), memory)
        pvc = _expected(self.cluster.pvcs.objects.get(object_key(key)), memory)
        memory.deleted.intersection_update(
            o["metadata"]["uid"] for o in (pod, pvc) if o is not None
        )
        secret = self.cluster.secrets.objects.get(object_key(key))
        self._follow(key, memory, pod)
        wants_pod = pod is None and session.deleted_at is None and not session.spec.suspend
        may_start = wants_pod and self.starts.ask(key, _urgency(session))
        return Facts(
            now=datetime.now(UTC),
            pod=pod,
            pvc=pvc,
            secret=secret,
            node=await self.cluster.node_of(pod) if pod else None,
            report=memory.follower.report if memory.follower else None,
            silent_since=memory.follower.silent_since if memory.follower else None,
            may_start=may_start if self.starts.is_open else None,
            may_update=self.updates.has(key),
            failures=memory.failures,
            refusals=dict(memory.refusals),
            client_id_of=self.cluster.client_id_of(key),
        )

    async def _carry_out(
        self, session: Session, body: Manifest, memory: Memory, result: Plan, facts: Facts
    ) -> float | None:
        """Does what the plan says and writes the status; the seconds after which to do so when that is put off.

        What is new is made first: the next look, at once, tells of it. Of what was there before,
        the status tells first what is done to it and why, so that a new operator knows.
        """

        async def tell() -> float | None:
            return await self._statuses.write(session, body, memory, result, facts.report)

        if any(isinstance(action, actions.CreatePod) for action in result.actions):
            try:
                await self._act(session, memory, result.actions)
            except Exception:
                await tell()
                raise
            return None
        if session.status.phase is None and any(
            isinstance(action, TOGETHER) for action in result.actions
        ):
            await self._act(session, memory, result.actions)
            return None
        untold = _untold(session, result, facts.now)
        wait = await tell() if untold is None else untold or None
        if wait is None or not _relies_on_status(session, result):
            await self._act(session, memory, result.actions)
        return wait

    async def _act(self, session: Session, memory: Memory, todo: list[plan.Action]) -> None:
        """The objects that a pod needs are made at the same time, and the pod after them."""
        together = [action for action in todo if isinstance(action, TOGETHER)]
        failed = await asyncio.gather(
            *(self._effects.perform(session, memory, a) for a in together), return_exceptions=True
        )
        for error in failed:
            if error is not None:
                raise error
        if any(type(action) in memory.refusals for action in together):
            return
        for action in todo:
            if action not in together:
                await self._effects.perform(session, memory, action)

    async def _refuse(self, session: Session, body: Manifest, memory: Memory, problem: str) -> Plan:
        status = plan.refused_spec(session, datetime.now(UTC), problem)
        result = Plan([], status, plan.make_events(session.status, status))
        return _sooner(result, await self._statuses.write(session, body, memory, result, None))

    def _follow(self, key: Key, memory: Memory, pod: Manifest | None) -> None:
        """Follows the pod at its present address; a pod that is ending is followed until it is gone."""
        address = (pod or {}).get("status", {}).get("podIP")
        follower = memory.follower
        if follower is not None and (follower.address, follower.session_uid) != (
            address,
            memory.uid,
        ):
            memory.unfollow()
        if memory.follower is None and address:

            def accepted() -> list[str]:
                secret = self.cluster.secrets.objects.get(object_key(key))
                return tokens(secret) if secret is not None else []

            memory.follower = Follower(
                self._http, address, memory.uid, accepted, partial(self.wake, key)
            )
        if memory.follower is not None and condition(pod, "Ready").get("status") == "True":
            memory.follower.pod_is_ready()

    def _take_turns(self, key: Key, session: Session, facts: Facts, result: Plan) -> None:
        """Who starts or is updated counts for the limits, until it is well or held up: that must not hold up the others."""
        held_up = any(
            c.type is ConditionType.DEGRADED and c.status == "True"
            for c in result.status.conditions
        )
        begins = any(isinstance(action, actions.CreatePod) for action in result.actions)
        reasons = {c.type: c.reason for c in result.status.conditions}
        if begins or (facts.pod is not None and result.status.phase in STARTING and not held_up):
            self.starts.take(key)
        elif self.starts.is_open and reasons.get(ConditionType.READY) != Reason.START_QUEUED:
            self.starts.leave(key)
        if plan.is_updating(result.status):
            self.updates.take(key)
        elif (
            reasons.get(ConditionType.PROGRESSING) == Reason.UPDATE_PENDING
            and session.spec.update_strategy is UpdateStrategy.ROLLING_UPDATE
        ):
            if self.updates.ask(key) and not facts.may_update:
                self.wake(key)
        else:
            self.updates.leave(key)


def _read(body: Manifest, written: Status | None) -> tuple[Session, str | None]:
    """What the API server has, and what is wrong with its spec, which is then taken as if it were empty."""
    metadata, problem, spec = body["metadata"], None, Spec()
    try:
        spec = Spec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    session = Session(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=spec,
        status=written or _read_status(body.get("status") or {}),
        deleted_at=datetime.fromisoformat(metadata["deletionTimestamp"])
        if is_terminating(body)
        else None,
        annotations=dict(metadata.get("annotations") or {}),
        finalizers=tuple(metadata.get("finalizers") or ()),
    )
    return session, problem


def _read_status(stored: Manifest) -> Status:
    """As much of a status as can be understood: what another version, or a person, has written must not lose the rest."""
    try:
        return Status.model_validate(stored)
    except ValidationError as error:
        wrong = {str(found["loc"][0]) for found in error.errors()}
        return Status.model_validate(
            {name: value for name, value in stored.items() if name not in wrong}
        )


def _expected(found: Manifest | None, memory: Memory) -> Manifest | None:
    """An object as it will be: one that was deleted is on its way out, even while the watch has not said so."""
    if found is None or is_terminating(found) or found["metadata"]["uid"] not in memory.deleted:
        return found
    return {
        **found,
        "metadata": {**found["metadata"], "deletionTimestamp": datetime.now(UTC).isoformat()},
    }


def _relies_on_status(session: Session, result: Plan) -> bool:
    """Whether something is done that a new operator, or whoever deletes a session, could only understand from the status."""
    if session.deleted_at is not None:
        return any(isinstance(action, actions.RemoveFinalizer) for action in result.actions)
    return any(isinstance(action, actions.DeletePod | actions.Logout) for action in result.actions)


def _untold(session: Session, result: Plan, now: datetime) -> float | None:
    """How long the end of a session is not written to it, in seconds: it may be over by then, and its deletion says as much.

    0 when it is over, and None when it is to be written now.

    What the operator, or a person, has to know of it is written at once.
    """
    if (
        session.deleted_at is None
        or result.events
        or result.status.session_valid != session.status.session_valid
    ):
        return None
    if result.done:
        return 0.0
    left = (session.deleted_at - now).total_seconds() + ENDS_WITHIN
    return left if left > 0 else None


def _urgency(session: Session) -> tuple[bool, float]:
    """Valid logins before new ones; among them the ones that were connected last."""
    connected = session.status.last_connected
    return not session.status.session_valid, -connected.timestamp() if connected else 0.0


def _sooner(result: Plan, wait: float | None) -> Plan:
    if wait is None or (
        result.requeue_after is not None and result.requeue_after.total_seconds() <= wait
    ):
        return result
    # A session is not released before all that is to be told of it has been.
    return Plan(
        result.actions,
        result.status,
        result.events,
        timedelta(seconds=wait),
        result.done and not wait,
    )
