"""The status's conditions, made so that a time changes only when a status does: pure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from wasession_api.v1alpha1 import Condition, ConditionType

Truth = Literal["True", "False", "Unknown"]


class Conditions:
    """Collects the conditions of one reconciliation."""

    def __init__(self, before: list[Condition], generation: int, now: datetime) -> None:
        self._before = {condition.type: condition for condition in before}
        self._generation = generation
        self._now = now
        self._found: dict[ConditionType, Condition] = {}

    def set(
        self, kind: ConditionType, status: Truth | bool, reason: str, message: str = ""
    ) -> None:
        truth: Truth = status if isinstance(status, str) else "True" if status else "False"
        before = self._before.get(kind)
        since = (
            before.last_transition_time
            if before is not None and before.status == truth
            else self._now
        )
        self._found[kind] = Condition(
            type=kind,
            status=truth,
            reason=reason,
            message=message[:1024],
            last_transition_time=since,
            observed_generation=self._generation,
        )

    def keep(self, kind: ConditionType) -> None:
        """Leaves a condition as it was."""
        if kind in self._before:
            self._found[kind] = self._before[kind]

    def listed(self) -> list[Condition]:
        return [self._found[kind] for kind in ConditionType if kind in self._found]
