"""What the plan decides on: everything known about a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Reason, Status

from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.plan.actions import Action

BACKOFF_INITIAL = timedelta(seconds=2)
BACKOFF_MAX = timedelta(minutes=5)
BACKOFF_RESET = timedelta(minutes=10)  # without a failure the count starts again


@dataclass(frozen=True)
class Session:
    """A WhatsAppSession as the API server has it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: EffectiveSpec
    status: Status
    deleted_at: datetime | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backoff:
    """Consecutive failures, and when to retry. In memory only: a new operator retries at once."""

    count: int = 0
    until: datetime | None = None

    def after(self, now: datetime, jitter: float) -> Backoff:
        """Return the backoff after one more failure.

        ``jitter`` is a factor of about 1; it spreads the retries of what has failed together.
        """
        reset = self.until is None or now - self.until > BACKOFF_RESET
        count = 1 if reset else self.count + 1
        delay = min(BACKOFF_INITIAL * 2 ** min(count - 1, 16), BACKOFF_MAX)
        return Backoff(count, now + delay * jitter)

    def wait(self, now: datetime) -> timedelta:
        """Return the time until the next retry; zero or negative when it is due."""
        return timedelta(0) if self.until is None else self.until - now


@dataclass(frozen=True)
class Refusal:
    """A failed action: its reason, the message of whoever refused it, and when to retry."""

    reason: Reason
    message: str
    retry: Backoff = Backoff()
    transient: bool = False  # the API server did not answer, or may answer otherwise next time


@dataclass(frozen=True)
class ProxySecret:
    """The Secret with the session's proxy."""

    name: str
    version: str | None  # its resource version; None: it does not exist


@dataclass(frozen=True)
class Node:
    """The node that the session's pod is bound to."""

    name: str
    gone: bool = False  # the API server has confirmed that its Node object does not exist
    not_ready_since: datetime | None = None
    out_of_service: bool = False  # tainted so by a person: the machine is off


@dataclass(frozen=True)
class Facts:
    """A session's objects and circumstances at one moment."""

    now: datetime
    pod: Manifest | None = None
    pvc: Manifest | None = None
    secret: Manifest | None = None
    node: Node | None = None
    proxy_secret: ProxySecret | None = None  # None: the session has none, or it is not known
    report: Report | None = None  # from this very pod, while the operator is connected to it
    silent_since: datetime | None = None  # since when the pod has not answered the operator
    watch_error: str | None = None  # why the operator has no report from the pod
    may_start: bool | None = True  # has a start slot; None before slots are granted
    may_update: bool = True  # has a slot to replace the pod for a changed template
    rollout_halted: bool = False  # because another session is not well after its update
    accepted_template: str | None = None  # hash of the one that the API server has just accepted
    failures: Backoff = Backoff()  # of its pods
    refusals: Mapping[type[Action], Refusal] = field(default_factory=dict)
    account_shared_with: str | None = None  # another session whose login is of the same account
    conflicting_session: str | None = None  # older, of the same namespace, owner and clientId
