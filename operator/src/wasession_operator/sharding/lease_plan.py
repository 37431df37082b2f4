"""Which Leases a replica acquires and releases. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from wasession_api.kube.manifests import Key

from wasession_operator.sharding.lease import Installation, Lease, LeaseKind


@dataclass(frozen=True)
class Observed:
    """A Lease, and when this replica has first seen it in its present state (monotonic seconds).

    Whether it has expired depends on this replica's clock alone (as in client-go): on how long it
    has seen no renewal. A Lease that somebody has deleted lasts as long as one that stays: its
    holder does not know yet.
    """

    lease: Lease
    since: float
    deleted: bool = False

    @property
    def expires_at(self) -> float:
        return self.since + self.lease.duration

    def is_live(self, now: float) -> bool:
        return bool(self.lease.holder) and now < self.expires_at


@dataclass(frozen=True)
class LeasePlan:
    """``acquire``: shards to take over. ``release``: shards to give away.

    ``rivals`` are installations that are there and would act on the same sessions; if one of them
    holds a shard, it is ``blocked_by`` it, and acquires nothing. ``wake_at`` is when that changes
    without an event (monotonic seconds).
    """

    acquire: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    rivals: frozenset[str] = frozenset()
    blocked_by: str | None = None
    wake_at: float | None = None


def observe(
    before: Observed | None, lease: Lease, now: float, *, deleted: bool = False
) -> Observed:
    """Note a Lease as it is now; one that was not renewed keeps its age.

    One whose holder a person has changed counts as deleted: who acquires or releases a Lease
    changes its time. It lasts as long as the holder has written when it renewed it.
    """
    if before is None:
        return Observed(lease, now, deleted)
    if _is_edited(before.lease, lease):
        return replace(before, deleted=True)
    if before.lease.state != lease.state:
        return Observed(lease, now, deleted)
    kept = replace(lease, duration=before.lease.duration)
    return replace(before, lease=kept, deleted=deleted)


def _is_edited(before: Lease, after: Lease) -> bool:
    """Return whether a holder has lost a Lease without another replica having written it."""
    is_same = before.uid == after.uid and after.renewed in ("", before.renewed)
    return is_same and before.holder not in ("", after.holder)


def plan_leases(
    pod: str,
    installation: Installation,
    held: Iterable[int],
    leases: Mapping[Key, Observed],
    now: float,
) -> LeasePlan:
    """Plan for the replica ``pod``, which holds the shards ``held``.

    Each replica has its quota of the shards: none has two more than another. One that ends deletes
    its member Lease and has no quota any more. A Lease that has this pod as its holder, but is not
    held, was lost by this process, or held by an earlier one of the pod, which has ended.
    """
    live = [observed for observed in leases.values() if observed.is_live(now)]
    foreign = [o for o in live if installation.competes_with(o.lease.installation)]
    rivals = frozenset(str(o.lease.installation) for o in foreign) - {str(installation)}
    acting = [o for o in foreign if o.lease.kind is LeaseKind.SHARD]
    own = [o for o in live if o.lease.installation.shares_leases_with(installation)]
    held = sorted(held)
    expiries = [o.expires_at for o in live if o.lease.holder != pod]
    wake_at = min(expiries, default=None)
    taken = {
        o.lease.index: o.lease.holder
        for o in own
        if o.lease.kind is LeaseKind.SHARD and o.lease.holder != pod
    }
    free = [index for index in range(installation.shards) if index not in taken.keys() | set(held)]
    members = {pod} | {
        o.lease.holder for o in own if o.lease.kind is LeaseKind.MEMBER and not o.deleted
    }
    shares = Counter(taken.values())
    shares[pod] = len(held)
    quota = _quota(pod, members, shares, installation.shards)
    release = tuple(held[quota:])
    if acting:
        blocked_by = min(str(o.lease.installation) for o in acting)
        return LeasePlan((), release, rivals, blocked_by, wake_at)
    acquire = tuple(free[: max(quota - len(held), 0)])
    return LeasePlan(acquire, release, rivals, wake_at=wake_at)


def _quota(pod: str, members: set[str], shares: Counter[str], shards: int) -> int:
    """Return how many shards a replica may hold.

    Those with more shards keep the odd ones, so that none moves without need.
    """
    order = sorted(members, key=lambda member: (-shares[member], member))
    each, odd = divmod(shards, len(order))
    return each + (order.index(pod) < odd)
