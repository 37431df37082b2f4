"""What goes in: everything that is known about a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Reason, Spec, Status

from wasession_operator.plan.actions import Action

BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_LAST = timedelta(minutes=5)
FORGOTTEN_AFTER = timedelta(minutes=10)  # without a failure, failures are counted anew


@dataclass(frozen=True)
class Session:
    """A WhatsAppSession as the API server has it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Spec
    status: Status
    deleted_at: datetime | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backoff:
    """What failed in a row, and when it may be tried again. In memory only: a new operator tries at once."""

    count: int = 0
    until: datetime | None = None

    def after(self, now: datetime, jitter: float) -> Backoff:
        """One failure more; ``jitter`` is a factor of about 1, so that what fails together is not tried together."""
        forgotten = self.until is None or now - self.until > FORGOTTEN_AFTER
        count = 1 if forgotten else self.count + 1
        delay = min(BACKOFF_FIRST * 2 ** min(count - 1, 16), BACKOFF_LAST)
        return Backoff(count, now + delay * jitter)

    def wait(self, now: datetime) -> timedelta:
        """How long still; nothing or less when the next try may be made."""
        return timedelta(0) if self.until is None else self.until - now


@dataclass(frozen=True)
class Refusal:
    """What came of an action that was not accepted, in the words of who refused it."""

    reason: Reason
    message: str
    retry: Backoff = Backoff()


@dataclass(frozen=True)
class Node:
    """The node that the session's pod is bound to."""

    name: str
    gone: bool = False  # its Node object does not exist, asked for at the API server
    silent_since: datetime | None = None  # since when it has not been Ready
    out_of_service: bool = False  # somebody says that the machine is off


@dataclass(frozen=True)
class Facts:
    """A session's objects and circumstances, at one moment."""

    now: datetime
    pod: Manifest | None = None
    pvc: Manifest | None = None
    secret: Manifest | None = None
    node: Node | None = None
    report: Report | None = None  # of this very pod, and only while it can be heard
    silent_since: datetime | None = None  # since when the pod has been called without an answer
    may_start: bool | None = (
        True  # whether it is this session's turn to start a pod; None before turns are given
    )
    may_update: bool = (
        True  # whether it is its turn to have its pod replaced for a changed template
    )
    failures: Backoff = Backoff()  # of its pods
    refusals: Mapping[type[Action], Refusal] = field(default_factory=dict)
    client_id_of: str | None = None  # an older session of the same namespace, owner and clientId
