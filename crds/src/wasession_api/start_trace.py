"""The trace of a session's start: in the operator from its creation, in the pod from its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from wasession_api import tracing
from wasession_api.tracing import Attributes, Span
from wasession_api.v1alpha1 import Phase

STARTING = {Phase.PENDING, Phase.STARTING, Phase.RESTORING, Phase.AUTHENTICATING, Phase.SYNCING}
LONGEST = 3600.0  # seconds; nobody looks at the trace of a start that takes longer


class StartTrace:
    """A span until the session is Ready, or something else is the matter.

    It has a child for each step, as the session's phase and reason tell them.
    """

    def __init__(self, span: Span) -> None:
        self.span = span
        self._ends = time.monotonic() + LONGEST
        self._step, self._told = tracing.NOTHING, ("", "")

    def observe(self, phase: Phase, reason: str) -> None:
        """Note what the session is now."""
        if not self._is_open() or (phase.value, reason) == self._told:
            return
        self._step.end()
        self._told = phase.value, reason
        told: Attributes = {tracing.PHASE: phase.value, tracing.REASON: reason}
        self.span.set(told)
        if phase in STARTING:
            self._step = tracing.begin(reason, self.span, attributes=told)
            return
        if phase is not Phase.READY:
            self.span.fail(reason)
        self.span.end()

    def end(self) -> None:
        """End it where it is."""
        self._step.end()
        self.span.end()

    def _is_open(self) -> bool:
        if time.monotonic() >= self._ends:
            self.end()
        return self.span.is_open

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Trace a block as a part of the start; what it does is a part of the block."""
        if not self._is_open():
            yield
            return
        span = tracing.begin(name, self.span)
        with span.ended(), tracing.working_for(span):
            yield
