"""Backoff after failures of any kind."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from wasession_operator.plan import Backoff


def next_backoff(before: Backoff) -> Backoff:
    """Return the backoff after one more failure, with jitter."""
    return before.after(datetime.now(UTC), random.uniform(0.8, 1.2))  # noqa: S311
