"""Traces of starts: from a session's creation, or that of a pod for it, until it is Ready."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from wasession_api import tracing
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.start_trace import StartTrace
from wasession_api.v1alpha1 import ConditionType, Status

from wasession_operator.plan.manifests import is_terminating
from wasession_operator.reconcile_state import ReconcileState


@contextlib.contextmanager
def reconciling(state: ReconcileState, sessions: Mapping[Key, Manifest]) -> Iterator[None]:
    """Trace a reconciliation of a session that starts: of a new one from the first on."""
    if tracing.is_on() and state.start_trace is None and _is_new(state, sessions):
        _begin(state)
    if state.start_trace is None:
        yield
        return
    with state.start_trace.step("reconcile"):
        yield


@contextlib.contextmanager
def creating_pod(state: ReconcileState) -> Iterator[str | None]:
    """Trace the creation of a pod; yield the traceparent with which it continues the trace."""
    if not tracing.is_on():
        yield None
        return
    trace = state.start_trace
    if trace is None or not trace.span.is_open:
        trace = _begin(state)
    working_for = tracing.current()
    with tracing.working_for(working_for if working_for.is_open else trace.span):
        yield trace.span.headers.get("traceparent")


def observe(state: ReconcileState, status: Status) -> None:
    """Note the status that has been written."""
    ready = status.condition(ConditionType.READY)
    if state.start_trace is not None and status.phase is not None and ready is not None:
        state.start_trace.observe(status.phase, ready.reason)


def end(state: ReconcileState) -> None:
    """End the trace: this replica sees no more of the session."""
    if state.start_trace is not None:
        state.start_trace.end()


def _begin(state: ReconcileState) -> StartTrace:
    attributes = {tracing.NAMESPACE: state.key[0], tracing.SESSION: state.key[1]}
    state.start_trace = StartTrace(tracing.begin("session start", attributes=attributes))
    return state.start_trace


def _is_new(state: ReconcileState, sessions: Mapping[Key, Manifest]) -> bool:
    if state.written is not None or (body := sessions.get(state.key)) is None:
        return False
    return not (body.get("status") or {}).get("phase") and not is_terminating(body)
