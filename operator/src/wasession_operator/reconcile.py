"""Brings facts together, asks ``plan``, and does what it says."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import aiohttp
import kopf
from pydantic import ValidationError
from wasession_api.v1alpha1 import Condition, ConditionType, Phase, Reason, Spec, Status

from wasession_operator import metrics, names, objects, plan
from wasession_operator.kube import Conflict, Kube, Refused
from wasession_operator.plan import Facts, Failures, Plan, Session
from wasession_operator.pods import Follower
from wasession_operator.settings import Settings

log = logging.getLogger(__name__)
Manifest = dict[str, Any]
Key = tuple[str, str]  # namespace and name
TOKEN_BYTES = 32
HEALTHY_AFTER = timedelta(minutes=10)  # a session that was Ready for so long starts counting failures anew
RETRY_AFTER = timedelta(seconds=5)  # after an answer of the API server that was not expected


@dataclass
class Memory:
    """What is known about one session between two reconciliations; all of it can be found out again."""

    uid: str | None = None  # of the session that all this is about
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failures: Failures = field(default_factory=Failures)
    ended: Reason | None = None
    follower: Follower | None = None
    has_secret: bool = False
    status: Status | None = None  # as it was written last: the watch may be behind


class Operator:
    """All sessions, and the cluster's objects as the watches have told them."""

    def __init__(self, settings: Settings, kube: Kube, http: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._kube = kube
        self._http = http
        self._pods: dict[Key, Manifest] = {}
        self._pvcs: dict[Key, Manifest] = {}
        self._nodes: dict[str, Manifest] = {}
        self._memories: dict[Key, Memory] = {}
        self._sessions: dict[Key, Manifest] = {}
        self._sessions_of: dict[Key, Key] = {}  # the session that an object's name stands for
        self._starting: set[Key] = set()
        self._open_at = time.monotonic() + settings.restoration_delay.total_seconds()

    # --- what the watches tell ----------------------------------------------------------------------------------------

    def session_seen(self, body: Manifest, *, gone: bool) -> None:
        key = _key(body)
        if gone:
            self._sessions.pop(key, None)
            return
        self._sessions[key] = body
        self._sessions_of[key[0], names.object_name(key[1])] = key
        self._wake(key)

    def object_seen(self, kind: str, body: Manifest, *, gone: bool) -> None:
        """A pod or volume claim with our labels."""
        store, key = (self._pods if kind == "Pod" else self._pvcs), _key(body)
        if gone:
            store.pop(key, None)
        else:
            store[key] = body
        if key in self._sessions_of:
            self._wake(self._sessions_of[key])

    def node_seen(self, body: Manifest, *, gone: bool) -> None:
        name = body["metadata"]["name"]
        before = self._nodes.get(name)
        if gone:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = body
        if gone or _lost_since(before) != _lost_since(body):
            for key, pod in self._pods.items():
                if pod["spec"].get("nodeName") == name and key in self._sessions_of:
                    self._wake(self._sessions_of[key])

    def observe(self) -> None:
        """Counts the sessions by phase, for the metrics."""
        found = Counter(body.get("status", {}).get("phase") for body in self._sessions.values())
        for phase in Phase:
            metrics.SESSIONS.labels(phase).set(found[phase])

    # --- the life of one session --------------------------------------------------------------------------------------

    async def hold(self, namespace: str, name: str, stopped: Any) -> None:
        """Reconciles a session whenever something about it changes, until told to stop."""
        key = (namespace, name)
        memory = self._memory(key)
        while not stopped:
            memory.wake.clear()
            outcome = await self._reconcile(key, memory)
            await self._sleep(memory, outcome.requeue_after if outcome else None)

    async def release(self, namespace: str, name: str) -> None:
        """Takes a deleted session's pod away, and its claim where it says so; returns when that is done."""
        key = (namespace, name)
        memory = self._memory(key)
        while True:
            memory.wake.clear()
            outcome = await self._reconcile(key, memory)
            if outcome is None or outcome.done:
                break
            await self._sleep(memory, outcome.requeue_after)
        await self._follow(key, memory, None)
        self._starting.discard(key)
        self._memories.pop(key, None)

    async def close(self) -> None:
        await asyncio.gather(*(m.follower.close() for m in self._memories.values() if m.follower))

    # --- one reconciliation -------------------------------------------------------------------------------------------

    async def _reconcile(self, key: Key, memory: Memory) -> Plan | None:
        """One pass; None when the session is not there any more. Never raises: what failed is tried again."""
        body = self._sessions.get(key)
        if body is None:
            return None
        with metrics.RECONCILE_SECONDS.time():
            try:
                if memory.uid != body["metadata"]["uid"]:  # another session of the same name
                    memory.uid, memory.status, memory.failures = body["metadata"]["uid"], None, Failures()
                session = _read_session(body, memory.status)
                pod = self._pods.get(_object_key(key))
                await self._follow(key, memory, pod)
                if pod is None or not memory.has_secret:
                    memory.has_secret = await self._kube.token(*_object_key(key), owner=session.uid) is not None
                facts = self._facts(key, memory, pod)
                result = plan.plan(session, facts, self.settings)
                await self._write_status(body, session, memory, result)
                for action in result.actions:
                    await self._do(session, memory, action)
                self._count(key, memory, result)
            except Conflict:
                return Plan([], Status(), [], RETRY_AFTER)  # what has the name is on its way out, or is reported next time
            except ValidationError as error:
                await self._refuse_spec(body, memory, error)
                return Plan([], Status(), [])
            except Exception:
                log.exception("reconciliation failed", extra={"namespace": key[0], "session": key[1]})
                return Plan([], Status(), [], RETRY_AFTER)
        return result

    def _facts(self, key: Key, memory: Memory, pod: Manifest | None) -> Facts:
        node = pod["spec"].get("nodeName") if pod else None
        return Facts(
            now=datetime.now(UTC),
            pod=pod,
            pvc=self._pvcs.get(_object_key(key)),
            secret=memory.has_secret,
            report=memory.follower.report if memory.follower else None,
            node_gone=node is not None and bool(self._nodes) and node not in self._nodes,
            node_lost_since=_lost_since(self._nodes.get(node or "")),
            may_start=self._may_start(key),
            failures=memory.failures,
            ended=memory.ended,
        )

    async def _do(self, session: Session, memory: Memory, action: plan.Action) -> None:
        namespace, name = session.namespace, names.object_name(session.name)
        identity = (namespace, session.name, session.uid, session.spec)
        match action:
            case plan.CreateSecret():
                token = secrets.token_urlsafe(TOKEN_BYTES)
                await self._kube.create("secrets", objects.make_secret(*identity, token=token))
                memory.has_secret = True
            case plan.CreatePvc():
                claim = await self._create("persistentvolumeclaims", objects.make_pvc(*identity))
                if claim is not None:
                    self._pvcs.setdefault((namespace, name), claim)
            case plan.PatchPvc(patch):
                await self._kube.patch("persistentvolumeclaims", namespace, name, patch)
            case plan.CreatePod(restoring, restart):
                await self._create_pod(session, memory, restoring=restoring, restart=restart)
            case plan.DeletePod(uid, reason, grace_seconds, failed):
                memory.ended = reason
                if failed:
                    memory.failures = Failures(memory.failures.count + 1, datetime.now(UTC))
                await self._kube.delete("pods", namespace, name, uid, grace_seconds)
            case plan.Logout():
                assert memory.follower is not None
                await memory.follower.logout(session.spec.timeouts.logout.total_seconds())
            case plan.DeletePvc(uid):
                await self._kube.delete("persistentvolumeclaims", namespace, name, uid)

    async def _create_pod(self, session: Session, memory: Memory, *, restoring: bool, restart: str | None) -> None:
        identity = (session.namespace, session.name, session.uid, session.spec)
        manifest = objects.make_pod(*identity, self.settings, restoring=restoring, restart=restart)
        try:
            pod = await self._create("pods", manifest)
        except Refused as error:
            memory.failures = Failures(memory.failures.count + 1, datetime.now(UTC), refused=str(error))
            memory.wake.set()
            return
        memory.failures = replace(memory.failures, refused=None)
        if pod is not None:
            metrics.POD_CREATIONS.labels(memory.ended or Reason.POD_CREATED).inc()
            # The watch tells of it only later: until then a second look must not create another.
            self._pods.setdefault((session.namespace, manifest["metadata"]["name"]), pod)
            self._starting.add((session.namespace, session.name))
        memory.wake.set()

    async def _create(self, plural: str, manifest: Manifest) -> Manifest | None:
        """The created object; None when its name is taken, which the watch then tells more of."""
        try:
            return await self._kube.create(plural, manifest)
        except Conflict:
            metadata = manifest["metadata"]
            found = await self._kube.get(plural, metadata["namespace"], metadata["name"])
            if found is not None:
                found.setdefault("kind", manifest["kind"])
                store = self._pods if plural == "pods" else self._pvcs
                store.setdefault((metadata["namespace"], metadata["name"]), found)
            return None

    async def _write_status(self, body: Manifest, session: Session, memory: Memory, result: Plan) -> None:
        """Writes what has changed, and tells the Events that go with it; nothing when nothing has."""
        before = memory.status.dump() if memory.status is not None else dict(body.get("status", {}))
        after = result.status.dump()
        if before == after:
            return
        gone: Manifest = {name: None for name in before if name not in after}
        changed = {name: value for name, value in after.items() if before.get(name) != value}
        changed = {name: _merged(before.get(name), value) for name, value in changed.items()}
        await self._kube.patch_status(session.namespace, session.name, {**gone, **changed})
        memory.status = result.status
        for event in result.events:
            kopf.event(kopf.Body(cast(Any, body)), type=event.type, reason=event.reason, message=event.message)

    async def _refuse_spec(self, body: Manifest, memory: Memory, error: ValidationError) -> None:
        """Says in the status why a spec can't be read, which the CRD's own validation should have said before."""
        first = error.errors(include_url=False, include_input=False)[0]
        message = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        condition = Condition(
            type=ConditionType.READY,
            status="False",
            reason=Reason.INVALID_SPEC,
            message=message,
            last_transition_time=datetime.now(UTC).replace(microsecond=0),
        )
        known = body.get("status", {}).get("conditions", [])
        if any(c["type"] == "Ready" and c["reason"] == Reason.INVALID_SPEC and c["message"] == message for c in known):
            return
        status = {"phase": Phase.FAILED.value, "conditions": [condition.dump()]}
        await self._kube.patch_status(*_key(body), status)
        kopf.event(kopf.Body(cast(Any, body)), type="Warning", reason=Reason.INVALID_SPEC, message=message)

    async def _follow(self, key: Key, memory: Memory, pod: Manifest | None) -> None:
        """Follows the pod at its present address; a pod that is ending is followed until it is gone."""
        address = (pod or {}).get("status", {}).get("podIP")
        if memory.follower is not None and memory.follower.address != address:
            follower, memory.follower = memory.follower, None
            await follower.close()
        if memory.follower is None and address:

            async def token() -> str | None:
                return await self._kube.token(*_object_key(key), owner=memory.uid)

            memory.follower = Follower(self._http, address, token, memory.wake.set)

    def _count(self, key: Key, memory: Memory, result: Plan) -> None:
        phase = result.status.phase
        started = phase in (Phase.READY, Phase.AUTHENTICATING, Phase.SUSPENDED, Phase.FAILED)
        stuck = any(c.type is ConditionType.DEGRADED and c.status == "True" for c in result.status.conditions)
        if (started or stuck) and key in self._starting:
            self._starting.discard(key)  # one that is stuck must not hold up the others
            for other in self._memories.values():
                other.wake.set()
        connected = result.status.last_connected
        if memory.failures.count and phase is Phase.READY and connected and datetime.now(UTC) - connected > HEALTHY_AFTER:
            memory.failures = Failures()

    def _may_start(self, key: Key) -> bool:
        if time.monotonic() < self._open_at:
            return False
        return key in self._starting or len(self._starting) < self.settings.max_concurrent_starts

    async def _sleep(self, memory: Memory, requeue_after: timedelta | None) -> None:
        """Until something changes or the time has come; a first look before the doors open is repeated when they do."""
        timeout = requeue_after.total_seconds() if requeue_after is not None else None
        closed = self._open_at - time.monotonic()
        if closed > 0:
            timeout = min(timeout, closed) if timeout is not None else closed
        try:
            async with asyncio.timeout(timeout):
                await memory.wake.wait()
        except TimeoutError:
            return

    def _memory(self, key: Key) -> Memory:
        return self._memories.setdefault(key, Memory())

    def _wake(self, key: Key) -> None:
        if key in self._memories:
            self._memories[key].wake.set()


def _read_session(body: Manifest, written: Status | None) -> Session:
    """Validates what the API server has; raises ``ValidationError``."""
    metadata = body["metadata"]
    return Session(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=Spec.model_validate(body.get("spec", {})),
        status=written or Status.model_validate(body.get("status", {})),
        deleted_at=datetime.fromisoformat(metadata["deletionTimestamp"]) if "deletionTimestamp" in metadata else None,
        annotations=dict(metadata.get("annotations", {})),
    )


def _merged(before: Any, after: Any) -> Any:
    """A value for a merge patch: a field that is no longer in an object has to be named as None."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    return {**{name: None for name in before if name not in after}, **after}


def _lost_since(node: Manifest | None) -> datetime | None:
    """Since when a node has not answered; None for one that does."""
    for condition in (node or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    return None


def _key(body: Manifest) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _object_key(key: Key) -> Key:
    return key[0], names.object_name(key[1])
