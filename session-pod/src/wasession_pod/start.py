"""The trace of the pod's start: the browser, the page, the login."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from wasession_api import tracing
from wasession_api.start_trace import StartTrace


def begin_start(traceparent: str | None) -> StartTrace:
    """Return the trace of this process's start, as a part of the operator's, if that is known.

    A later container of the same pod only refers to that: it may be months old by then.
    """
    if not tracing.is_on():
        return StartTrace(tracing.NOTHING)
    parent = link = tracing.NOTHING
    if traceparent is not None:
        asked = tracing.remote({"traceparent": traceparent})
        parent, link = (asked, link) if _is_first(traceparent) else (parent, asked)
    begun = tracing.begin("session pod start", parent, link=link, since=time.time() - _age())
    return StartTrace(begun)


def _age() -> float:
    """Return the seconds since the process was started: imports take a while."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return since_boot - int(started) / os.sysconf("SC_CLK_TCK")


def _is_first(traceparent: str) -> bool:
    """Return whether no container of the pod has begun before: its /tmp outlives them."""
    try:
        Path(tempfile.gettempdir(), f"wasession-{traceparent}").touch(exist_ok=False)
    except OSError:
        return False
    return True
