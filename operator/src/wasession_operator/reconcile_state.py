"""What the controller remembers of one session between two reconciliations."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from wasession_api.kube.informer import is_newer
from wasession_api.kube.manifests import Key
from wasession_api.start_trace import StartTrace
from wasession_api.v1alpha1 import Status

from wasession_operator.plan import Action, Backoff, Refusal
from wasession_operator.plan.facts import AppliedSecret
from wasession_operator.report_watcher import ReportWatcher

OfClass = tuple[str, int, str | None]  # UID and generation of a class, and revision
ACCEPTED_FOR = 60.0  # seconds


@dataclass(slots=True)
class ReconcileState:
    """In memory only; the shard's next holder derives all of it again.

    ``uid`` is the session's: another session of the same name has another state. Times are
    monotonic.
    """

    key: Key
    uid: str
    generations: tuple[int, OfClass | None] | None = None  # of the session and its class
    template: str | None = None  # hash of the pod's template in those generations
    requeue_timer: asyncio.TimerHandle | None = None
    pod_failures: Backoff = field(default_factory=Backoff)
    reconcile_failures: Backoff = field(default_factory=Backoff)
    refusals: dict[type[Action], Refusal] = field(default_factory=dict)
    outdated: set[type[Action]] = field(default_factory=set)  # whose object had changed meanwhile
    accepted_template: str | None = None  # hash of the one that the API server has accepted last
    accepted_at: float = 0.0
    token_epoch: int = 0
    secret_applied: AppliedSecret | None = None  # as far as this replica knows
    deleted: set[str] = field(default_factory=set)  # UIDs of objects, until the informers know
    report_watcher: ReportWatcher | None = None
    start_trace: StartTrace | None = None  # of its last start, if it has started here
    written: Status | None = None  # the last status written, until a watch event contains it
    written_version: str | None = None
    written_at: float = 0.0
    conflicts: int = 0  # of the status in a row: somebody else has written each time
    differs_since: float | None = None  # since when the desired status has not been written

    @property
    def log_extra(self) -> dict[str, str]:
        """Return what identifies the session in a log line."""
        return {"namespace": self.key[0], "session": self.key[1], "uid": self.uid}

    def accept(self, template: str) -> None:
        """Note that the API server accepts a pod of this template."""
        self.accepted_template, self.accepted_at = template, time.monotonic()

    def fresh_template(self) -> str | None:
        """Return the accepted template unless that was too long ago to be relied on."""
        fresh = time.monotonic() - self.accepted_at < ACCEPTED_FOR
        return self.accepted_template if fresh else None

    def observe_generations(self, own: int, of_class: OfClass | None) -> None:
        """Forget what follows from an earlier spec of the session, or of its class."""
        if self.generations != (own, of_class):
            self.generations = own, of_class
            self.template = None
            self.refusals.clear()

    def observe_version(self, version: str) -> bool:
        """Note a version of the session from its watch; return whether the controller wrote it.

        The written status is part of that version or an earlier one from then on.
        """
        own = version == self.written_version
        if own or (self.written_version is not None and is_newer(version, self.written_version)):
            self.written = self.written_version = None
        return own

    def latest_version(self, version: str) -> str:
        """Return the session's version after the controller's last write, or the one that was read.

        The later of both: the watch may be behind.
        """
        written = self.written_version
        return written if written is not None and is_newer(written, version) else version

    def cancel_requeue(self) -> None:
        """Cancel the timed reconciliation, if any."""
        if self.requeue_timer is not None:
            self.requeue_timer.cancel()
        self.requeue_timer = None

    def stop_watching(self) -> None:
        """Stop watching the pod's report."""
        if self.report_watcher is not None:
            self.report_watcher.close()
        self.report_watcher = None
