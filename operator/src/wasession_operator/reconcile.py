"""Brings the facts about a session together, asks ``plan``, and has done what it says."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from pydantic import ValidationError
from wasession_api.kube import Conflict, Kube, Refused, Unavailable
from wasession_api.v1alpha1 import ConditionType, Phase, Reason, Spec, Status, UpdateStrategy
from wasession_api.watch import Key

from wasession_operator import metrics, objects, plan
from wasession_operator.cluster import Cluster, object_key
from wasession_operator.effects import Effects, again
from wasession_operator.memory import Memory
from wasession_operator.plan import Facts, Plan, Session, actions
from wasession_operator.plan.manifests import condition, is_terminating
from wasession_operator.pods import Follower
from wasession_operator.settings import Settings
from wasession_operator.statuses import Statuses
from wasession_operator.turns import Turns

log = logging.getLogger(__name__)
Manifest = dict[str, Any]
STARTING = {Phase.PENDING, Phase.STARTING, Phase.RESTORING, Phase.SYNCING}


class Operator:
    """All sessions. ``start`` it, then ``hold`` each session from its creation on, and ``release`` it when it is deleted."""

    def __init__(self, settings: Settings, kube: Kube, http: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.memories: dict[Key, Memory] = {}
        self.cluster = Cluster(kube, settings.namespaces, self.wake, watch_nodes=settings.watch_nodes)
        self.starts = Turns(settings.max_concurrent_starts, self.wake)
        self.updates = Turns(settings.max_concurrent_updates, self.wake)
        self._http = http
        self._effects = Effects(settings, kube, self.cluster)
        self._statuses = Statuses(kube)

    def wake(self, key: Key) -> None:
        """Something about a session has changed."""
        if key in self.memories:
            self.memories[key].wake()

    async def close(self) -> None:
        await asyncio.gather(*(m.follower.close() for m in self.memories.values() if m.follower))

    # --- the life of one session --------------------------------------------------------------------------------------

    async def hold(self, key: Key, uid: str, stopped: Any) -> None:
        """Looks at a session whenever something about it changes, until told to stop, or it is deleted."""
        memory = self.memories.setdefault(key, Memory())
        await self.cluster.synced()
        while not stopped and self._is_present(key, uid) and not is_terminating(self.cluster.sessions[key]):
            outcome = await self._look(key, memory)
            await memory.sleep(_seconds(outcome))

    async def release(self, key: Key, uid: str) -> None:
        """Takes a deleted session's pod away, and its claim where it says so; returns when that is done."""
        memory = self.memories.setdefault(key, Memory())
        await self.cluster.synced()
        while self._is_present(key, uid):
            outcome = await self._look(key, memory)
            if outcome is None or outcome.done:
                break
            await memory.sleep(_seconds(outcome))
        await self.forget(key, uid)

    async def forget(self, key: Key, uid: str) -> None:
        """A session is not there any more."""
        self.cluster.session_gone(key, uid)
        memory = self.memories.get(key)
        if memory is None or memory.uid not in (None, uid):
            return  # another session has the name already
        del self.memories[key]
        self.starts.leave(key)
        self.updates.leave(key)
        if memory.follower is not None:
            await memory.follower.close()

    def _is_present(self, key: Key, uid: str) -> bool:
        return key in self.cluster.sessions and self.cluster.sessions[key]["metadata"]["uid"] == uid

    # --- one look at a session ----------------------------------------------------------------------------------------

    async def _look(self, key: Key, memory: Memory) -> Plan | None:
        """One pass; None when the session is not there any more. Never raises: what failed is tried again."""
        async with memory.lock:
            metrics.QUEUE_SECONDS.observe(memory.begin())
            try:
                with metrics.RECONCILE_SECONDS.time():
                    return await self._reconcile(key, memory)
            except Exception as error:
                memory.errors = again(memory.errors)
                wait = max(memory.errors.wait(datetime.now(UTC)).total_seconds(), getattr(error, "retry_after", 0.0))
                where = {"namespace": key[0], "session": key[1], "uid": memory.uid, "again_in": round(wait, 1)}
                if isinstance(error, Unavailable | Refused | Conflict):
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
        memory.of(body["metadata"]["uid"], body["metadata"].get("generation", 0))
        if memory.written_version == body["metadata"].get("resourceVersion"):
            memory.written = None  # the watch has caught up with what was written
        session, problem = _read(body, memory.written)
        if problem is not None and session.deleted_at is None:
            return await self._refuse(session, body, memory, problem)
        facts = await self._facts(key, memory, session)
        result = plan.plan(session, facts, self.settings)
        # What is new is made first and told then. Of what was there before, the status tells first what is done to it and
        # why, so that a new operator knows.
        known = session.status.phase is not None
        wait = await self._statuses.write(session, body, memory, result, facts.report) if known else None
        if wait is None or not _relies_on_status(result):
            await self._act(session, memory, result.actions)
        if not known and not result.actions:
            wait = await self._statuses.write(session, body, memory, result, facts.report)
        memory.errors = plan.Backoff()
        if wait is None:  # what is not written yet is not so for anybody else
            self._take_turns(key, session, facts, result)
        return _sooner(result, wait)

    async def _facts(self, key: Key, memory: Memory, session: Session) -> Facts:
        pod = _expected(self.cluster.pods.objects.get(object_key(key)), memory)
        pvc = _expected(self.cluster.pvcs.objects.get(object_key(key)), memory)
        memory.deleted.intersection_update(o["metadata"]["uid"] for o in (pod, pvc) if o is not None)
        secret = self.cluster.secrets.objects.get(object_key(key))
        await self._follow(key, memory, pod)
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

    async def _act(self, session: Session, memory: Memory, todo: list[plan.Action]) -> None:
        """The objects that a pod needs are made at the same time, and the pod after them."""
        together = [action for action in todo if isinstance(action, actions.CreateSecret | actions.CreatePvc)]
        failed = await asyncio.gather(*(self._effects.perform(session, memory, a) for a in together), return_exceptions=True)
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

    async def _follow(self, key: Key, memory: Memory, pod: Manifest | None) -> None:
        """Follows the pod at its present address; a pod that is ending is followed until it is gone."""
        address = (pod or {}).get("status", {}).get("podIP")
        follower = memory.follower
        if follower is not None and (follower.address, follower.session_uid) != (address, memory.uid):
            memory.follower = None
            await follower.close()
        if memory.follower is None and address and memory.uid is not None:

            def tokens() -> list[str]:
                secret = self.cluster.secrets.objects.get(object_key(key))
                return objects.tokens(secret) if secret is not None else []

            memory.follower = Follower(self._http, address, memory.uid, tokens, memory.wake)
        if memory.follower is not None and condition(pod, "Ready").get("status") == "True":
            memory.follower.pod_is_ready()

    def _take_turns(self, key: Key, session: Session, facts: Facts, result: Plan) -> None:
        """Who starts or is updated counts for the limits, until it is well or held up: that must not hold up the others."""
        held_up = any(c.type is ConditionType.DEGRADED and c.status == "True" for c in result.status.conditions)
        begins = any(isinstance(action, actions.CreatePod) for action in result.actions)
        reasons = {c.type: c.reason for c in result.status.conditions}
        if begins or (facts.pod is not None and result.status.phase in STARTING and not held_up):
            self.starts.take(key)
        elif self.starts.is_open and reasons.get(ConditionType.READY) != Reason.WAITING_FOR_TURN:
            self.starts.leave(key)
        if plan.is_updating(result.status):
            self.updates.take(key)
        elif (
            reasons.get(ConditionType.PROGRESSING) == Reason.UPDATE_PENDING
            and session.spec.update_strategy is UpdateStrategy.ROLLING_UPDATE
        ):
            self.updates.ask(key)
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
        deleted_at=datetime.fromisoformat(metadata["deletionTimestamp"]) if is_terminating(body) else None,
        annotations=dict(metadata.get("annotations") or {}),
    )
    return session, problem


def _read_status(stored: Manifest) -> Status:
    """As much of a status as can be understood: what another version, or a person, has written must not lose the rest."""
    try:
        return Status.model_validate(stored)
    except ValidationError as error:
        wrong = {str(found["loc"][0]) for found in error.errors()}
        return Status.model_validate({name: value for name, value in stored.items() if name not in wrong})


def _expected(found: Manifest | None, memory: Memory) -> Manifest | None:
    """An object as it will be: one that was deleted is on its way out, even while the watch has not said so."""
    if found is None or is_terminating(found) or found["metadata"]["uid"] not in memory.deleted:
        return found
    return {**found, "metadata": {**found["metadata"], "deletionTimestamp": datetime.now(UTC).isoformat()}}


def _relies_on_status(result: Plan) -> bool:
    """Whether something is done that a new operator could only understand from the status."""
    return any(isinstance(action, actions.DeletePod | actions.Logout | actions.CreatePod) for action in result.actions)


def _urgency(session: Session) -> tuple[bool, float]:
    """Valid logins before new ones; among them the ones that were connected last."""
    connected = session.status.last_connected
    return not session.status.session_valid, -connected.timestamp() if connected else 0.0


def _sooner(result: Plan, wait: float | None) -> Plan:
    if wait is None or (result.requeue_after is not None and result.requeue_after.total_seconds() <= wait):
        return result
    return Plan(result.actions, result.status, result.events, timedelta(seconds=wait), result.done)


def _seconds(outcome: Plan | None) -> float | None:
    if outcome is None or outcome.requeue_after is None:
        return None
    return max(outcome.requeue_after.total_seconds(), 0.0)
