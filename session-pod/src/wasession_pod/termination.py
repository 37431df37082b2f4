"""The container's termination message, which kubelet publishes in the pod's status."""

from __future__ import annotations

import contextlib
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
MAXIMUM = 4096  # characters


def write_termination_message(reason: str) -> None:
    """Say why the container ends, where there is a place for it."""
    with contextlib.suppress(OSError):
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(reason[:MAXIMUM])
