"""What one pass of the plan has found out so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from wasession_api.v1alpha1 import Phase, Reason

from wasession_operator.plan.actions import Action
from wasession_operator.plan.facts import Facts, Refusal

Finding = tuple[bool, str, str]  # whether it is well, reason, message


@dataclass
class Draft:
    """Collected by the parts of the plan, one after the other; ``status`` makes the status of it."""

    phase: Phase = Phase.PENDING
    reason: str = Reason.POD_PENDING
    message: str = ""
    actions: list[Action] = field(default_factory=list)
    pod: Finding = (False, Reason.POD_MISSING, "")
    storage: Finding = (False, Reason.VOLUME_PENDING, "")
    secret: bool = False  # whether the session's own Secret is there, or is being made
    keep: bool = False  # something that is asked for is not known yet: until it is, what the status says still counts
    leave_volume: bool = False  # the pod has to go, because its volume is given up
    given_up: bool = False  # a person has accepted that the login is lost
    update_pending: str = ""  # why a changed template has not been taken up yet
    troubles: list[tuple[str, str]] = field(
        default_factory=list
    )  # reason and message, in the order found
    requeue: timedelta | None = None
    done: bool = False

    def say(self, reason: str, message: str) -> None:
        """Why the session is where it is."""
        self.reason, self.message = reason, message

    def blocked(self, reason: str, message: str) -> None:
        """Nothing can go on until somebody or something changes this."""
        self.say(reason, message)
        self.trouble(reason, message)

    def trouble(self, reason: str, message: str) -> None:
        """Something to look after, whatever the session does meanwhile."""
        self.troubles.append((reason, message))

    def look_again(self, after: timedelta) -> None:
        if self.requeue is None or after < self.requeue:
            self.requeue = after

    def attempt(self, action: Action, facts: Facts) -> Refusal | None:
        """Plans an action, unless it was refused and it is too early to try again; returns the refusal to be told."""
        refusal = facts.refusals.get(type(action))
        wait = refusal.retry.wait(facts.now) if refusal else timedelta(0)
        if wait > timedelta(0):
            self.look_again(wait)
        else:
            self.actions.append(action)
        return refusal
