"""Decide how to recover a session that has lost WhatsApp, step by step.

First the page gets time to reconnect by itself; then comes a fresh page, then a new browser, and
finally the process exits, so that Kubernetes starts a new container. The delay before each step
doubles, with jitter (``spec.reconnect``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

PAGE_DELAYS = 5  # the first delays, about a minute by default, belong to the page alone
RESET_AFTER = timedelta(minutes=10)  # of Ready, after which an outage is over


class Step(IntEnum):
    """A recovery step; a higher one takes more effort."""

    START = 1  # start the browser, once the volume is usable again
    OPEN = 2  # open WhatsApp Web, once it is reachable again
    RELOAD = 3  # open WhatsApp Web in a fresh page
    RESTART = 4  # start another browser
    EXIT = 5  # exit the process


# How often to take a step before the next one. Unlisted steps wait for something outside the pod
# and repeat forever: a new process would see the same network and volume, and could not report it.
LIMITS = {Step.RELOAD: 3, Step.RESTART: 4}


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff. ``jitter`` is a factor near 1 that each process draws once."""

    initial: timedelta
    maximum: timedelta
    jitter: float = 1.0

    def delay(self, attempts: int) -> timedelta:
        """Return the delay before the next attempt, after ``attempts`` of them."""
        return min(self.initial * 2.0 ** min(attempts, 32), self.maximum) * self.jitter

    @property
    def page_patience(self) -> timedelta:
        """How long a page may take to reconnect by itself."""
        return sum((self.delay(number) for number in range(PAGE_DELAYS)), timedelta(0))


@dataclass(frozen=True)
class Outage:
    """A problem, from its first sign until the session has been Ready for ``RESET_AFTER``."""

    cause: str  # one of ``v1alpha1.Reason``
    step: Step
    attempts: int = 0  # of this step
    total_attempts: int = 0  # of all steps
    due: datetime | None = None  # when to take the step; None while its outcome is pending


def escalate(
    before: Outage | None,
    cause: str,
    step: Step,
    now: datetime,
    backoff: Backoff,
    *,
    page_first: bool = False,
) -> Outage:
    """Return the outage after a problem that needs at least ``step``.

    ``page_first`` gives the page time to reconnect by itself.
    """
    outage = before or Outage(cause, step)
    wait = backoff.delay(outage.total_attempts)
    if page_first:
        wait = max(wait, backoff.page_patience)
    if outage.due is None:
        return replace(_after_attempt(outage, step), cause=cause, due=now + wait)
    if page_first and step <= outage.step:
        return outage
    due = min(outage.due, now + wait)
    if step > outage.step:
        return replace(outage, cause=cause, step=step, attempts=0, due=due)
    return replace(outage, cause=cause, due=due)


def _after_attempt(outage: Outage, needed: Step) -> Outage:
    """Return the outage with its next step, after the previous one has not been enough."""
    if needed not in LIMITS:
        return outage if needed is outage.step else replace(outage, step=needed, attempts=0)
    if needed > outage.step:
        return replace(outage, step=needed, attempts=0)
    if outage.step in LIMITS and outage.attempts >= LIMITS[outage.step]:
        return replace(outage, step=Step(outage.step + 1), attempts=0)
    return outage


def begin_step(outage: Outage) -> Outage:
    """Return the outage once its due step has begun."""
    return replace(
        outage,
        attempts=outage.attempts + 1,
        total_attempts=outage.total_attempts + 1,
        due=None,
    )
