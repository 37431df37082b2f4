"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(what: str, condition: Callable[[], object], timeout: float) -> None:
    """Return when ``condition()`` is true; an exception of the condition counts as false.

    Raises ``TimeoutError`` naming ``what`` after ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    last: Exception | None = None
    while True:
        try:
            if condition():
                return
        except Exception as error:
            last = error
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s") from last
        time.sleep(0.05)
