"""Rolls changes of classes out: decides which sessions may be updated, and writes how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from wasession_api import names
from wasession_api.base import rfc3339
from wasession_api.kube.client import (
    CLASSES,
    EVENTS,
    Conflict,
    KubeClient,
    Rejected,
    Unavailable,
)
from wasession_api.kube.manifests import Manifest, condition
from wasession_api.v1alpha1 import (
    API_VERSION,
    CLASS_KIND,
    ROLLED_OUT,
    ClassCondition,
    Revision,
    Rollout,
    RolloutPhase,
    RolloutStatus,
)

from wasession_operator import metrics
from wasession_operator.backoff import next_backoff
from wasession_operator.plan import Backoff
from wasession_operator.plan.class_rollout import decide
from wasession_operator.plan.session_class import SessionClass
from wasession_operator.revisions import Revisions
from wasession_operator.session_classes import own_rollout, parse_rollout
from wasession_operator.sharding.shards import Admission, Shards

log = logging.getLogger(__name__)
POLL_INTERVAL = 1.0  # seconds; soaks end and windows open without an event
DEBOUNCE = 0.2  # seconds to collect changes
COUNTS_INTERVAL = 10.0  # seconds between two writes of counts alone
EVENTS_NAMESPACE = "default"  # that of Events about what is in no namespace
# What happens to a rollout, by its phase: type and reason of the Event.
EVENT_OF = {
    RolloutPhase.CANARY: ("Normal", "RolloutStarted"),
    RolloutPhase.SOAKING: ("Normal", "RolloutSoaking"),
    RolloutPhase.PROGRESSING: ("Normal", "RolloutProgressing"),
    RolloutPhase.ROLLING_BACK: ("Normal", "RolloutRollingBack"),
    RolloutPhase.WAITING_FOR_WINDOW: ("Normal", "RolloutWaiting"),
    RolloutPhase.PAUSED: ("Normal", "RolloutPaused"),
    RolloutPhase.HALTED: ("Warning", "RolloutHalted"),
    RolloutPhase.COMPLETE: ("Normal", "RolloutComplete"),
}
# The phase that a condition shows, of several operators' rollouts; the first one counts.
WORST = (
    RolloutPhase.HALTED, RolloutPhase.PAUSED, RolloutPhase.WAITING_FOR_WINDOW,
    RolloutPhase.ROLLING_BACK, RolloutPhase.CANARY, RolloutPhase.SOAKING, RolloutPhase.PROGRESSING,
    RolloutPhase.COMPLETE,
)  # fmt: skip
COUNTED = {"message", "total", "updated", "ready"}  # what is not written at once


class Rollouts:
    """One replica decides about a class: the one that holds the shard with its name."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._cache = shards.cache
        self._operator = shards.settings.operator_name
        self._revisions = Revisions(shards.settings)
        self._written: dict[str, float] = {}  # by class; monotonic
        self._backoffs: dict[str, Backoff] = {}  # by class: of those whose status is rejected

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._cache.wait_for_sync()
        changed = self._cache.rollouts.changed
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), POLL_INTERVAL)
                await asyncio.sleep(DEBOUNCE)
            changed.clear()
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        classes, led = self._cache.classes, []
        for name in classes.names:
            kube, session_class = self._shards.leader_client(name), classes.get(name)
            if kube is None or session_class is None or session_class.error is not None:
                continue
            rollout = session_class.spec.rollout
            if rollout is not None:
                led.append(name)
                await self._look(kube, session_class, rollout)
            elif classes.rollout(name) is not None:
                await self._end(kube, session_class)
        metrics.observe_rollouts({name: classes.rollout(name) for name in led})

    async def _end(self, kube: KubeClient, session_class: SessionClass) -> None:
        """Remove what the status says of the rollouts of a class that has none any more."""
        self._shards.admit(session_class.name, Admission("", frozenset()))
        await self._write(kube, session_class, self._cache.classes.rollout(session_class.name))

    async def _look(self, kube: KubeClient, session_class: SessionClass, rollout: Rollout) -> None:
        """Decide about a class; what is decided counts once it is written."""
        name, classes = session_class.name, self._cache.classes
        before, target = classes.rollout(name), self._revisions.of(session_class)
        if before is None and not classes.usage(name)[0]:
            return
        if before is not None and _is_over(before, target):
            self._shards.admit(name, Admission(target.name, frozenset()))
            return
        admission = self._shards.admission(name)
        admitted = admission.sessions if admission.revision == target.name else frozenset()
        decision = decide(
            before,
            rollout,
            target,
            self._cache.rollouts.members(session_class, rollout, classes.all_sessions(name)),
            admitted,
            datetime.now(UTC),
            operator=self._operator,
            limit=self._shards.settings.max_concurrent_updates,
            resume=session_class.resume_rollout,
        )
        allowed = decision.admitted
        if _is_transition(before, decision.status):
            if not await self._write(kube, session_class, before, decision.status):
                allowed &= admitted
        elif before != decision.status and self._may_write_counts(name):
            await self._write(kube, session_class, before, decision.status)
        self._shards.admit(name, Admission(target.name, allowed))

    def _may_write_counts(self, name: str) -> bool:
        written = self._written.get(name)
        return written is None or time.monotonic() - written >= COUNTS_INTERVAL

    async def _write(
        self,
        kube: KubeClient,
        session_class: SessionClass,
        before: RolloutStatus | None,
        rollout: RolloutStatus | None = None,
    ) -> bool:
        """Write the status of a rollout; return whether it is what others see from now on."""
        name = session_class.name
        backoff = self._backoffs.get(name, Backoff())
        if backoff.wait(datetime.now(UTC)) > timedelta(0):
            return False
        obj = self._cache.classes.informer.objects.get(("", name))
        if obj is None or own_rollout(obj, self._operator) != before:
            return False
        present = (obj.get("status") or {}).get("rollouts") or []
        others = [entry for entry in present if entry.get("operator") != self._operator]
        rollouts = [] if rollout is None else [rollout.dump()]
        rolled_out = make_condition(obj, [*others, *rollouts]) if rollouts else None
        manifest = {
            "apiVersion": API_VERSION,
            "kind": CLASS_KIND,
            "metadata": {"name": name, "resourceVersion": obj["metadata"]["resourceVersion"]},
            "status": {
                "rollouts": rollouts,
                "conditions": [] if rolled_out is None else [rolled_out],
            },
        }
        self._written[name] = time.monotonic()
        extra = {"class": name}
        try:
            manager = f"{self._operator}/rollout"
            written = await kube.apply(CLASSES, manifest, "/status", manager=manager)
        except Conflict:
            return False  # the class has changed; its watch event follows
        except (Rejected, Unavailable) as error:
            self._backoffs[name] = next_backoff(backoff)
            log.warning(
                "writing the rollout of class %s failed; no further session is updated, retrying",
                name,
                extra={**extra, "error": str(error)},
            )
            return False
        self._backoffs.pop(name, None)
        self._cache.classes.informer.upsert(written)
        if before is not None and rollout is not None and _place(before) != _place(rollout):
            extra |= {"revision": rollout.revision, "phase": rollout.phase}
            level = logging.ERROR if rollout.phase is RolloutPhase.HALTED else logging.INFO
            message = "rollout of class %s is %s: %s"
            log.log(level, message, name, rollout.phase, rollout.message, extra=extra)
            await self._emit(kube, session_class, rollout)
        return True

    async def _emit(
        self, kube: KubeClient, session_class: SessionClass, rollout: RolloutStatus
    ) -> None:
        try:
            await kube.create(EVENTS, make_event(session_class, rollout, datetime.now(UTC)))
        except (Rejected, Conflict, Unavailable) as error:
            log.warning(
                "Event not created; it will be missing",
                extra={"class": session_class.name, "error": str(error)},
            )


def make_condition(session_class: Manifest, rollouts: Sequence[Manifest]) -> Manifest:
    """Return the condition of a class that says whether it is rolled out, by all its operators."""
    parsed = [parsed for entry in rollouts if (parsed := parse_rollout(entry)) is not None]
    worst = min(parsed, key=lambda rollout: (WORST.index(rollout.phase), rollout.operator))
    truth = worst.phase is RolloutPhase.COMPLETE
    present = condition(session_class, ROLLED_OUT)
    is_same = bool(present) and (present.get("status") == "True") is truth
    made: Manifest = ClassCondition(
        type=ROLLED_OUT,
        status="True" if truth else "False",
        reason=worst.phase,
        message=worst.message,
        last_transition_time=present["lastTransitionTime"] if is_same else datetime.now(UTC),
    ).dump()
    return made


def make_event(session_class: SessionClass, rollout: RolloutStatus, now: datetime) -> Manifest:
    """Return an Event about a class, which ``kubectl describe`` shows."""
    kind, reason = EVENT_OF[rollout.phase]
    message = rollout.message or f"All sessions are of revision {rollout.revision}."
    counts = f" {rollout.updated} of {rollout.total} sessions are updated."
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": EVENTS_NAMESPACE, "generateName": f"{session_class.name}."},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": CLASS_KIND,
            "name": session_class.name,
            "uid": session_class.uid,
        },
        "type": kind,
        "reason": reason,
        "message": f"{message[:900]}{counts}",
        "source": {"component": names.MANAGED_BY},
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
    }


def _is_over(rollout: RolloutStatus, target: Revision) -> bool:
    return rollout.phase is RolloutPhase.COMPLETE and rollout.revision == target.name


def _place(rollout: RolloutStatus) -> tuple[object, ...]:
    return rollout.revision, rollout.phase, rollout.step


def _is_transition(before: RolloutStatus | None, after: RolloutStatus) -> bool:
    """Return whether more has changed than what is counted."""
    if before is None:
        return True
    return before.model_dump(exclude=COUNTED) != after.model_dump(exclude=COUNTED)
