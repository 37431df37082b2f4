"""Acquires, renews and releases the Leases of shards, for one replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Protocol

from wasession_api.kube.client import (
    LEASES,
    Conflict,
    KubeClient,
    Rejected,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, key_of

from wasession_operator.sharding.lease import (
    ANNOTATION_UPDATES,
    SELECTOR,
    Installation,
    Lease,
    held_by,
    make_lease,
    member_lease_name,
    micro_time,
    parse_lease,
    parse_shard_lease,
    shard_lease_name,
)
from wasession_operator.sharding.lease_plan import LeasePlan, Observed, observe, plan_leases

log = logging.getLogger(__name__)
# Of a Lease's duration, as in client-go (15 s, 10 s, 2 s): how long after its last renewal the
# holder stops, and how often it renews. What is in between is for requests that are on their way.
RENEW_DEADLINE = 0.6
RETRY_PERIOD = 0.2
RETRY_SOON = 0.05  # after a renewal that has failed
WAKE_MARGIN = 0.01  # seconds after the expiry of another replica's Lease
FORGET_AFTER = 3600.0  # seconds for which a Lease that is gone is known after it has expired
Failure = Rejected | Conflict | Unavailable | ResourceExpired


class ShardCallbacks(Protocol):
    """What is told which shards this replica holds."""

    def start_shard(self, index: int, lease: HeldLease) -> None:
        """Begin to act on a shard."""

    async def finish_shard(self, index: int, timeout: float) -> bool:
        """End what is in progress on a shard within a time in seconds, and begin nothing.

        Return whether the API server has answered every write.
        """

    async def stop_shard(self, index: int) -> None:
        """Stop to act on a shard at once."""

    def desired_updates(self, index: int) -> str:
        """Return what the Lease of a shard should say of updates by now."""


class HeldLease:
    """A fence: ``remaining`` says for how long this replica may still act.

    Times are monotonic: when the last successful renewal was sent, when the next one is due, and
    when the holder has to stop.
    """

    def __init__(self, lease: Lease, sent: float, duration: float) -> None:
        self._duration = duration
        self.renewed(lease, sent)

    def renewed(self, lease: Lease, sent: float) -> None:
        self.lease, self.sent = lease, sent
        self.due = sent + self._duration * RETRY_PERIOD
        self.deadline = sent + self._duration * RENEW_DEADLINE

    def retry_soon(self) -> None:
        self.due = time.monotonic() + self._duration * RETRY_SOON

    def close(self) -> None:
        """Let nothing more be sent: the Lease is lost, or about to be released."""
        self.deadline = -math.inf

    def remaining(self) -> float:
        """Return the seconds for which requests may still be sent; not positive: none."""
        return self.deadline - time.monotonic()


class Leases:
    """``held`` are the shards of this replica.

    Leases of all installations are watched, by ``informer``: run it beside this.
    """

    def __init__(
        self, kube: KubeClient, installation: Installation, pod: str, pod_uid: str, duration: float
    ) -> None:
        """``duration`` is in seconds. With ``pod_uid``, the member Lease goes with the Pod."""
        self.held: dict[int, HeldLease] = {}
        self.plan = LeasePlan()
        self.installation = installation
        # Called when the rivals have changed, and when what Leases say of updates has.
        self.rivals_changed: Callable[[], None] = lambda: None
        self.updates_changed: Callable[[], None] = lambda: None
        self._kube = kube
        self._pod = pod
        self._owners = _owner(pod, pod_uid)
        self._duration = duration
        self._patience = duration * RENEW_DEADLINE / 2  # for one attempt to acquire or renew
        self._observed: dict[Key, Observed] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self.informer = Informer(kube, LEASES, (), SELECTOR, self._lease_changed)
        self._member_sent = -math.inf  # when the replica's own Lease was renewed last; monotonic
        self._errors: dict[str, str] = {}  # of the last writes, by Lease

    @property
    def error(self) -> str | None:
        """Return why this replica cannot acquire shards, if so."""
        return self.informer.rejection(None) or next(iter(self._errors.values()), None)

    async def run(self, shards: ShardCallbacks) -> None:
        """Take a share of the shards until ``stop`` is called, then give all of them away.

        When cancelled, the Leases are left to expire.
        """
        while not (self.informer.is_synced or self._stopping):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._duration * RETRY_PERIOD):
                    await self.informer.wait_for_sync()
        while not self._stopping:
            await self._renew_all(shards)
            await self._follow_plan(shards)
            await self._wait()
        await asyncio.gather(*(self._give_away(shards, index) for index in list(self.held)))
        await self._leave()

    def stop(self) -> None:
        """Have ``run`` give all shards away and return."""
        self._stopping = True
        self._wake.set()

    def updates_of(self, index: int) -> str:
        """Return what the Lease of a shard says of updates, as far as is known."""
        if index in self.held:
            return self.held[index].lease.updates
        key = self.installation.namespace, shard_lease_name(self.installation, index)
        observed = self._observed.get(key)
        return "" if observed is None else observed.lease.updates

    def write_updates(self) -> None:
        """Write what the Leases of held shards should say of updates by now."""
        self._wake.set()

    # --- observation ------------------------------------------------------------------------------

    def _lease_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        obj = after or before
        assert obj is not None
        lease, key = parse_lease(obj), key_of(obj)
        known = self._observed.get(key)
        if lease is None:  # no longer a Lease of ours: as if it were deleted
            if known is not None:
                self._observed[key] = observe(known, known.lease, time.monotonic(), deleted=True)
            return
        deleted = after is None
        self._observed[key] = observe(known, lease, time.monotonic(), deleted=deleted)
        if known is None or deleted or known.lease.holder != lease.holder:
            self._wake.set()
        if lease.updates != ("" if known is None else known.lease.updates):
            self.updates_changed()

    def _plan(self) -> LeasePlan:
        now = time.monotonic()
        for key, observed in list(self._observed.items()):
            if observed.deleted and now > observed.expires_at + FORGET_AFTER:
                del self._observed[key]
        return plan_leases(self._pod, self.installation, self.held, self._observed, now)

    # --- one round --------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait until the next renewal, or until something about the Leases has changed."""
        times = [self._member_sent + self._duration * RETRY_PERIOD]
        for held in self.held.values():
            times += [held.deadline, held.due]
        if self.plan.wake_at is not None:
            times.append(self.plan.wake_at + WAKE_MARGIN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(min(times) - time.monotonic(), 0)):
                await self._wake.wait()
        self._wake.clear()

    async def _renew_all(self, shards: ShardCallbacks) -> None:
        """Renew each Lease that is due or says something new; stop the shards that are lost."""
        soon = time.monotonic() + WAKE_MARGIN
        async with asyncio.TaskGroup() as group:
            if self._member_sent + self._duration * RETRY_PERIOD <= soon:
                group.create_task(self._renew_member())
            for index, held in list(self.held.items()):
                updates = shards.desired_updates(index)
                news = updates != held.lease.updates or self._is_contested(held.lease)
                if min(held.due, held.deadline) <= soon or news:
                    group.create_task(self._renew(shards, index, updates))

    def _is_contested(self, lease: Lease) -> bool:
        """Return whether a Lease that is held has been deleted, or has another holder."""
        observed = self._observed.get(lease.key)
        return observed is not None and (observed.deleted or observed.lease.holder != self._pod)

    async def _renew(self, shards: ShardCallbacks, index: int, updates: str) -> None:
        held = self.held[index]
        sent = time.monotonic()
        try:
            async with asyncio.timeout(max(min(held.remaining(), self._patience), 0)):
                lease = await self._extend(held.lease, index, updates)
        except (Rejected, Conflict, Unavailable, TimeoutError) as error:
            if isinstance(error, Conflict):
                await self._lose(shards, index, str(error))
            elif held.remaining() <= 0:
                reason = f"its Lease could not be renewed: {_reason(error)}"
                await self._lose(shards, index, reason)
            else:
                held.retry_soon()
                log.warning(
                    "renewing the Lease failed; the shard is given up in %.1f s",
                    held.remaining(),
                    extra={"lease": held.lease.key[1], "error": _reason(error)},
                )
            return
        said = held.lease.updates
        held.renewed(lease, sent)
        if said != updates:
            self.updates_changed()

    async def _extend(self, lease: Lease, index: int, updates: str) -> Lease:
        """Renew a Lease; raise ``Conflict`` when it is somebody else's.

        One that a person has deleted is created again: other replicas wait until it would have
        expired. One that a person has edited is restored, if nobody else has held it since.
        """
        spec = held_by(self._pod, self._duration)
        try:
            return await self._write(lease, spec, updates)
        except Conflict:
            present = await self._kube.get(LEASES, *lease.key)
        if present is None:
            spec |= {"acquireTime": micro_time(), "leaseTransitions": lease.transitions}
            manifest = make_lease(self.installation, lease.key[1], index, spec)
            manifest["metadata"]["annotations"][ANNOTATION_UPDATES] = updates
            created = await self._kube.create(LEASES, manifest)
            return parse_shard_lease(created, self.installation, index)
        current = parse_shard_lease(present, self.installation, index)
        is_emptied = current.state == (lease.uid, "", lease.renewed)
        if not is_emptied and (current.uid, current.holder) != (lease.uid, self._pod):
            raise Conflict(f"Lease {lease.key[1]} is held by {current.holder or 'nobody'}")
        return await self._write(current, spec, updates)

    async def _renew_member(self) -> None:
        """Renew the Lease that says that this replica can take shards over."""
        spec = held_by(self._pod, self._duration)
        name = member_lease_name(self.installation, self._pod)
        manifest = make_lease(self.installation, name, None, spec, self._owners)
        self._member_sent = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._duration * RETRY_PERIOD):
                try:
                    await self._kube.apply(LEASES, manifest)
                    self._errors.pop(name, None)
                except (Rejected, Conflict, Unavailable) as error:
                    self._warn("renewing the replica's own Lease failed; retrying", name, error)

    async def _follow_plan(self, shards: ShardCallbacks) -> None:
        before, self.plan = self.plan, self._plan()
        if before.rivals != self.plan.rivals or before.blocked_by != self.plan.blocked_by:
            self._report_rivals(before)
            self.rivals_changed()
        needed = {shard_lease_name(self.installation, index) for index in self.plan.acquire}
        needed.add(member_lease_name(self.installation, self._pod))
        self._errors = {name: error for name, error in self._errors.items() if name in needed}
        await asyncio.gather(*(self._give_away(shards, index) for index in self.plan.release))
        await asyncio.gather(*(self._acquire(shards, index) for index in self.plan.acquire))

    def _report_rivals(self, before: LeasePlan) -> None:
        for rival in self.plan.rivals - before.rivals:
            log.error(
                "operator %s serves sessions that this operator (%s) serves as well; only one of "
                "them acts: uninstall one, or give them different namespaces",
                rival,
                self.installation,
                extra={"rival": rival},
            )
        if self.plan.blocked_by is not None and self.plan.blocked_by != before.blocked_by:
            log.warning(
                "operator %s holds Leases for the same sessions; waiting until it releases them",
                self.plan.blocked_by,
                extra={"rival": self.plan.blocked_by},
            )

    async def _acquire(self, shards: ShardCallbacks, index: int) -> None:
        """Take a shard over, unless another replica or installation is quicker."""
        name = shard_lease_name(self.installation, index)
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                lease = await self._take(index, name)
                if lease is None:
                    return
                rival = await self._find_rival()
        except (Rejected, Conflict, Unavailable, ResourceExpired, TimeoutError) as error:
            if not isinstance(error, Conflict):
                self._warn("acquiring the Lease failed; retrying", name, error)
            return  # one that was written all the same is found with this replica as its holder
        self._errors.pop(name, None)
        held = HeldLease(lease, sent, self._duration)
        if rival is not None:
            log.warning("operator %s was quicker; giving the Lease back", rival)
            await self._release(held)
            # Both may have acquired at the same moment, and both given way: not again.
            await asyncio.sleep(self._duration * random.uniform(0, RETRY_PERIOD))  # noqa: S311
            return
        self.held[index] = held
        log.info("acquired shard %d", index, extra={"shard": index, "lease": name})
        shards.start_shard(index, held)

    async def _take(self, index: int, name: str) -> Lease | None:
        spec = held_by(self._pod, self._duration) | {"acquireTime": micro_time()}
        present = await self._kube.get(LEASES, self.installation.namespace, name)
        if present is None:
            manifest = make_lease(self.installation, name, index, {**spec, "leaseTransitions": 0})
            created = await self._kube.create(LEASES, manifest)
            return parse_shard_lease(created, self.installation, index)
        lease = parse_shard_lease(present, self.installation, index)
        if lease.holder not in ("", self._pod):
            now = time.monotonic()
            known = observe(self._observed.get(lease.key), lease, now)
            self._observed[lease.key] = known
            if known.is_live(now):
                return None  # it was renewed since the plan was made, or is seen for the first time
        return await self._write(lease, {**spec, "leaseTransitions": lease.transitions + 1})

    async def _find_rival(self) -> str | None:
        """Return an installation that holds a Lease for the same sessions by now, if any.

        Of two that acquire at the same time, at least the later one sees the other.
        """
        async for page in self._kube.pages(LEASES, None, SELECTOR):
            for item in page["items"]:
                self._lease_changed(None, item)
        return self._plan().blocked_by

    async def _write(self, lease: Lease, spec: Manifest, updates: str | None = None) -> Lease:
        """Patch a shard's Lease that is still as it was read; raise ``Conflict`` otherwise.

        Labels and annotations that somebody has edited are restored.
        """
        assert lease.index is not None
        made = make_lease(self.installation, lease.key[1], lease.index, spec)["metadata"]
        annotations = made["annotations"]
        if updates not in (None, lease.updates):
            annotations[ANNOTATION_UPDATES] = updates
        patch = {
            "metadata": {
                "uid": lease.uid,
                "resourceVersion": lease.version,
                "labels": made["labels"],
                "annotations": annotations,
            },
            "spec": spec,
        }
        patched = await self._kube.patch(LEASES, *lease.key, patch)
        if patched is None:
            raise Conflict(f"Lease {lease.key[1]} was deleted")
        return parse_shard_lease(patched, self.installation, lease.index)

    # --- ends -------------------------------------------------------------------------------------

    async def _lose(self, shards: ShardCallbacks, index: int, reason: str) -> None:
        held = self.held.pop(index)
        held.close()
        log.error(
            "shard %d was lost: %s",
            index,
            reason,
            extra={"shard": index, "lease": held.lease.key[1]},
        )
        await shards.stop_shard(index)

    async def _give_away(self, shards: ShardCallbacks, index: int) -> None:
        """Finish what is in progress, then release the Lease; another replica takes it at once.

        While a write is unanswered it may still be carried out: then the Lease has to expire.
        """
        held = self.held[index]
        extra = {"shard": index, "lease": held.lease.key[1]}
        log.info("releasing shard %d", index, extra=extra)
        patience = min(held.remaining(), self._duration * RETRY_PERIOD)
        is_done = await shards.finish_shard(index, patience)
        del self.held[index]
        held.close()
        if is_done:
            await self._release(held)
        else:
            log.warning(
                "the API server has not answered all writes to shard %d; its Lease is not "
                "released, and expires in %.0f s",
                index,
                self._duration,
                extra=extra,
            )

    async def _release(self, held: HeldLease) -> None:
        try:
            async with asyncio.timeout(self._duration * RETRY_PERIOD):
                await self._write(held.lease, {"holderIdentity": "", "renewTime": micro_time()})
        except (Rejected, Conflict, Unavailable, TimeoutError) as error:
            extra = {"lease": held.lease.key[1], "error": _reason(error)}
            log.warning("releasing the Lease failed; it expires", extra=extra)

    async def _leave(self) -> None:
        """Delete the replica's own Lease."""
        name = member_lease_name(self.installation, self._pod)
        observed = self._observed.get((self.installation.namespace, name))
        if observed is None:
            return
        try:
            async with asyncio.timeout(self._duration * RETRY_PERIOD):
                await self._kube.delete(
                    LEASES, self.installation.namespace, name, observed.lease.uid
                )
        except (Rejected, Conflict, Unavailable, TimeoutError) as error:
            extra = {"lease": name, "error": _reason(error)}
            log.warning("deleting the replica's own Lease failed; it expires", extra=extra)

    def _warn(self, message: str, lease: str, error: Failure | TimeoutError) -> None:
        self._errors[lease] = _reason(error)
        log.warning(message, extra={"lease": lease, "error": self._errors[lease]})


def _owner(pod: str, uid: str) -> list[Manifest]:
    return [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}] if uid else []


def _reason(error: Failure | TimeoutError) -> str:
    return str(error) or "the API server has not answered in time"
