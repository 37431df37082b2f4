"""What the plan decides on: everything known about a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    BackupMethod,
    BackupStatus,
    ClassReference,
    Reason,
    Status,
)

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
    own_spec: str = ""  # hash of what it sets itself of its pod
    revision: str | None = None  # of its class that its pod should be of; None: not known
    pod_spec: EffectiveSpec | None = None  # with that revision; None: it is the spec

    @property
    def spec_of_pod(self) -> EffectiveSpec:
        """Return the spec that the session's next pod is made of."""
        return self.pod_spec or self.spec


@dataclass(frozen=True)
class Backoff:
    """Consecutive failures, and when to retry. In memory only: another replica retries at once."""

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
class AppliedSecret:
    """The session's Secret as this operator has applied it last."""

    token_id: str
    at: datetime


class Violation(NamedTuple):
    """Why the session's class does not let it start."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class NetworkPolicy:
    """The NetworkPolicy of the session's namespace and class, as it should be."""

    manifest: Manifest
    is_current: bool = False  # the API server has it as it should be


@dataclass(frozen=True)
class NamedBackup:
    """The WhatsAppSessionBackup that the session's volume is to begin with."""

    uid: str
    status: BackupStatus
    is_served: bool  # its login was in a session that this operator knows, or knows to be gone
    method: BackupMethod = BackupMethod.ARCHIVE
    snapshot_missing: bool = False  # its VolumeSnapshot, of which a PVC is to be made
    size_limit: str | None = None  # of volumes, by the class of the session that is restored


@dataclass(frozen=True)
class LoginHolder:
    """Another session with a copy of the same login."""

    name: str  # with its namespace
    uid: str
    restored_at: datetime | None  # None: a phone was linked there
    is_stopped: bool  # it has no pod, and gets none
    has_pod: bool = True
    is_served: bool = True  # this operator reconciles it


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
    template: str = ""  # hash of the one that the pod should be of
    node: Node | None = None
    token_ids: tuple[str, str] = ("", "")  # of the status's token epoch and of the next one
    secret_applied: AppliedSecret | None = None  # None: not since the shard was acquired
    report: Report | None = None  # from this very pod, while the operator is connected to it
    silent_since: datetime | None = None  # since when the pod has not answered the operator
    unauthorized: bool = False  # the pod accepts none of the session's tokens
    watch_error: str | None = None  # why the operator has no report from the pod
    may_start: bool | None = True  # has a start slot; None before slots are granted
    awaited_budget: str = "the cluster"  # whose start slots are taken, when it may not start
    may_update: bool = True  # has a slot to replace the pod for a changed template
    may_roll_out: bool = False  # the class's rollout has reached it: it needs no other slot
    rollout_halted: bool = False  # because another session is not well after its update
    accepted_template: str | None = None  # hash of the one that the API server has just accepted
    failures: Backoff = Backoff()  # of its pods
    refusals: Mapping[type[Action], Refusal] = field(default_factory=dict)
    backup: NamedBackup | None = None  # None: it does not exist, or there is to be none
    login_holders: tuple[LoginHolder, ...] = ()
    login_survey_gap: str | None = None  # why there may be more holders, when all were looked for
    backup_running: bool = False  # one of the session's own is being made
    last_backup: datetime | None = None  # of which moment the latest completed backup is
    account_shared_with: str | None = None  # another session whose login is of the same account
    conflicting_session: str | None = None  # older, of the same namespace, owner and clientId
    session_class: ClassReference | None = None  # the class that the effective spec is of
    class_violation: Violation | None = None  # why the class does not let the session start
    network_policy: NetworkPolicy | None = None  # None: there is to be none, or it is not known
