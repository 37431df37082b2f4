"""What the parts of the plan return: frozen values that ``plan()`` combines."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from wasession_api.v1alpha1 import (
    BootstrapStatus,
    HibernationStatus,
    LogoutStatus,
    Phase,
    Reason,
    RequestStatus,
    UpdateStatus,
    VolumeLoss,
)

from wasession_operator.objects import Restore, SnapshotRestore
from wasession_operator.plan.actions import Action, ApplySecret
from wasession_operator.plan.facts import Facts

PATIENCE = 3  # failed attempts in a row until a failure that may pass by itself is a problem


class Finding(NamedTuple):
    """Whether one of the session's objects is as it should be, and why."""

    ok: bool
    reason: str
    message: str = ""


AS_EXPECTED = Finding(True, Reason.AS_EXPECTED)


class Problem(NamedTuple):
    """Something that needs attention, whatever the session does meanwhile: it is Degraded then."""

    reason: str
    message: str


@dataclass(frozen=True)
class Step:
    """Actions to take now, problems to report, and when to plan again if no event comes first."""

    actions: tuple[Action, ...] = ()
    problems: tuple[Problem, ...] = ()
    requeue_after: timedelta | None = None

    def __add__(self, other: Step) -> Step:
        if not (other.actions or other.problems or other.requeue_after is not None):
            return self  # most of the dozen parts of a plan have nothing to do
        times = [t for t in (self.requeue_after, other.requeue_after) if t is not None]
        return Step(
            self.actions + other.actions,
            self.problems + other.problems,
            min(times, default=None),
        )


def report_problem(reason: str, message: str) -> Step:
    """Return a step that only reports a problem."""
    return Step(problems=(Problem(reason, message),))


def attempt(action: Action, facts: Facts) -> Step:
    """Return a step that takes the action, as soon as the backoff of a failed attempt is over.

    Until an attempt succeeds, the last failure is reported as a problem; one that may pass by
    itself only when it lasts.
    """
    failure = facts.refusals.get(type(action))
    if failure is None:
        return Step((action,))
    step = Step()
    if not failure.transient or failure.retry.count >= PATIENCE:
        step = report_problem(failure.reason, failure.message)
    wait = failure.retry.wait(facts.now)
    return step + (Step(requeue_after=wait) if wait > timedelta(0) else Step((action,)))


@dataclass(frozen=True)
class StorageResult:
    """The volume claim."""

    finding: Finding  # the condition StorageReady
    step: Step = field(default_factory=Step)
    data_loss_accepted: bool = False  # by annotation: the login is lost together with its volume
    loss: VolumeLoss | None = None  # of a valid login, until another claim is there
    release_volume: bool = False  # delete the pod, so that the lost claim can be replaced


@dataclass(frozen=True)
class BootstrapResult:
    """``finding`` is ok if nothing of this keeps the session's pod from being created."""

    status: BootstrapStatus | None
    finding: Finding = AS_EXPECTED
    step: Step = field(default_factory=Step)
    restore: Restore | SnapshotRestore | None = None
    stop: Reason | None = None  # why the present pod has to go

    @property
    def data_source(self) -> SnapshotRestore | None:
        """What a new volume is made from, if it does not begin empty."""
        return self.restore if isinstance(self.restore, SnapshotRestore) else None


@dataclass(frozen=True)
class HibernationResult:
    """Whether the session sleeps, and the latest wake-up that somebody has requested."""

    status: HibernationStatus | None
    wake: RequestStatus | None
    step: Step = field(default_factory=Step)

    @property
    def is_asleep(self) -> bool:
        return self.status is not None


@dataclass(frozen=True)
class TokenResult:
    """The token that the session's pod should have, and the requested rotation."""

    epoch: int
    id: str
    rotation: RequestStatus | None
    archive: str | None = None  # key of the one that the pod restores

    @property
    def apply(self) -> ApplySecret:
        return ApplySecret(self.epoch, self.archive)


@dataclass(frozen=True)
class NetworkPolicyResult:
    """The NetworkPolicy; ``finding`` is ok while it is as it should be or is being applied."""

    finding: Finding
    step: Step = field(default_factory=Step)


@dataclass(frozen=True)
class PodResult:
    """The pod, and with it the session's phase."""

    phase: Phase
    reason: str  # why the session is in its phase: the condition Ready
    message: str
    finding: Finding  # the condition PodReady
    step: Step = field(default_factory=Step)
    undecided: bool = False  # an answer is still awaited: until then the present status stands
    pending: Problem | None = None  # why a change or a request has not been applied to it yet


@dataclass(frozen=True)
class LogoutResult:
    """A requested logout."""

    status: LogoutStatus | None
    step: Step = field(default_factory=Step)


@dataclass(frozen=True)
class UpdateResult:
    """The update of the pod to a changed template."""

    status: UpdateStatus | None
    step: Step = field(default_factory=Step)


@dataclass(frozen=True)
class Outcome:
    """All results of one pass."""

    pod: PodResult
    storage: StorageResult | None  # None while the session is being deleted
    logout: LogoutStatus | None
    update: UpdateStatus | None
    step: Step  # of all parts
    token: TokenResult | None = None  # None while the session is being deleted
    bootstrap: BootstrapStatus | None = None
    hibernation: HibernationResult | None = None  # None while the session is being deleted
    done: bool = False  # a deleted session has nothing left

    @property
    def data_loss_accepted(self) -> bool:
        return self.storage is not None and self.storage.data_loss_accepted
