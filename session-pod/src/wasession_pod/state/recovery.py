"""How a session that has lost WhatsApp gets it back, step by step: pure.

The page first, since it connects again by itself; then a fresh page, then another browser, and at
last the end of the process, which Kubernetes answers with a new container. Waiting between them
doubles, with jitter (``spec.reconnect``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

PAGE_TRIES = 5  # so many of the first delays belong to the page alone: about a minute by default
RESET_AFTER = timedelta(
    minutes=10
)  # of Ready, after which the next trouble starts from the first step


class Step(IntEnum):
    """What is done next, in the order of effort."""

    START = 1  # the browser, when the volume can be used again
    OPEN = 2  # WhatsApp Web, when it can be reached again
    RELOAD = 3  # a fresh page
    RESTART = 4  # another browser
    EXIT = 5


# How often a step is done before the next one. What the outside has to mend first is done for ever:
# a new process would find the same network and the same volume, and nobody could ask it how it is.
LIMITS = {Step.RELOAD: 3, Step.RESTART: 4}


@dataclass(frozen=True)
class Backoff:
    """Delays from ``initial`` to ``longest``; ``jitter`` is this process's own factor, near 1."""

    initial: timedelta
    longest: timedelta
    jitter: float = 1.0

    def delay(self, tries: int) -> timedelta:
        """Before the next try, after ``tries`` of them."""
        return min(self.initial * 2.0 ** min(tries, 32), self.longest) * self.jitter

    @property
    def patience(self) -> timedelta:
        """How long a page is left to connect again by itself."""
        return sum((self.delay(number) for number in range(PAGE_TRIES)), timedelta(0))


@dataclass(frozen=True)
class Outage:
    """A trouble, from its first sign until the session has been Ready for ``RESET_AFTER``."""

    cause: str  # one of ``v1alpha1.Reason``
    step: Step
    done: int = 0  # how often this step was done
    tries: int = 0  # steps in all
    due: datetime | None = None  # when the step is to be done; None while its outcome is awaited


def trouble(
    before: Outage | None,
    cause: str,
    step: Step,
    now: datetime,
    backoff: Backoff,
    *,
    page_first: bool = False,
) -> Outage:
    """The outage after a sign of trouble that asks for ``step`` at least; ``page_first`` leaves the page time to mend it."""
    outage = before or Outage(cause, step)
    wait = backoff.delay(outage.tries)
    if page_first:
        wait = max(wait, backoff.patience)
    if outage.due is not None:
        if page_first and step <= outage.step:
            return outage
        climbs = step > outage.step
        return replace(
            outage,
            cause=cause,
            step=step if climbs else outage.step,
            done=0 if climbs else outage.done,
            due=min(outage.due, now + wait),
        )
    return replace(_after(outage, step), cause=cause, due=now + wait)


def _after(outage: Outage, asked: Step) -> Outage:
    """The outage with its next step, when ``asked`` is needed and the last one was not enough."""
    if asked not in LIMITS:
        return outage if asked is outage.step else replace(outage, step=asked, done=0)
    if asked > outage.step:
        return replace(outage, step=asked, done=0)
    if outage.done >= LIMITS.get(outage.step, outage.done + 1):
        return replace(outage, step=Step(outage.step + 1), done=0)
    return outage


def taken(outage: Outage) -> Outage:
    """The outage when its step has just been begun."""
    return replace(outage, done=outage.done + 1, tries=outage.tries + 1, due=None)
