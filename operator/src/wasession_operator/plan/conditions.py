"""Conditions whose transition time changes only when their status does: pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from wasession_api.v1alpha1 import Condition, ConditionType

Truth = Literal["True", "False", "Unknown"]
MESSAGE_MAX = 1024  # characters; the CRD's limit


class Conditions:
    """Collects the conditions of one reconciliation."""

    def __init__(self, before: list[Condition], generation: int, now: datetime) -> None:
        self._before = {condition.type: condition for condition in before}
        self._generation = generation
        self._now = now
        self._after: dict[ConditionType, Condition] = {}

    def set(
        self, kind: ConditionType, status: Truth | bool, reason: str, message: str = ""
    ) -> None:
        truth: Truth = status if isinstance(status, str) else "True" if status else "False"
        before = self._before.get(kind)
        unchanged = before is not None and before.status == truth
        self._after[kind] = Condition(
            type=kind,
            status=truth,
            reason=reason,
            message=message[:MESSAGE_MAX],
            last_transition_time=before.last_transition_time if before and unchanged else self._now,
            observed_generation=self._generation,
        )

    def retain(self, kind: ConditionType) -> None:
        """Leave a condition as it was."""
        if kind in self._before:
            self._after[kind] = self._before[kind]

    def drop(self, kind: ConditionType) -> None:
        self._after.pop(kind, None)

    def as_list(self) -> list[Condition]:
        """Return the conditions in the order of ``ConditionType``."""
        return [self._after[kind] for kind in ConditionType if kind in self._after]
