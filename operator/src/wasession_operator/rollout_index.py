"""How the sessions of each class are, as far as its rollout is concerned; of all shards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from pydantic import ValidationError
from wasession_api.kube.manifests import Key, Manifest, condition
from wasession_api.v1alpha1 import Phase, Reason, Rollout, UpdateStatus, UpdateStrategy

from wasession_operator.plan.class_rollout import Member
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.plan.session_class import SessionClass

# Phases that a session with a login leaves by itself.
TRANSIENT = {
    Phase.PENDING, Phase.STARTING, Phase.RESTORING, Phase.SYNCING, Phase.RECONNECTING,
}  # fmt: skip
# Why the pod of a session is left alone, whatever its class says.
HELD = {
    Reason.INVALID_SPEC, Reason.CLASS_NOT_FOUND, Reason.INVALID_CLASS, Reason.CLASS_NOT_ALLOWED,
    Reason.OVERRIDE_NOT_ALLOWED, Reason.LIMIT_EXCEEDED, Reason.VOLUME_TERMINATING,
}  # fmt: skip


class _Observed(NamedTuple):
    member: Member
    strategy: str | None  # its own
    labels: dict[str, str]


class RolloutIndex:
    """Follows the sessions. ``changed`` is set when something has changed."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._observed: dict[Key, _Observed] = {}

    def observe(self, key: Key, after: Manifest | None) -> None:
        """Note a session; None for one that does not exist any more."""
        before = self._observed.get(key)
        observed = None if after is None else _observe(key, after, before)
        if observed == before:
            return
        if observed is None:
            del self._observed[key]
        else:
            self._observed[key] = observed
        self.changed.set()

    def members(
        self, session_class: SessionClass, rollout: Rollout, keys: Iterator[Key]
    ) -> list[Member]:
        """Return the sessions of a class as its rollout sees them."""
        wanted = rollout.canary.match_labels.items()
        default = session_class.spec.template.update_strategy
        members = []
        for key in keys:
            if (observed := self._observed.get(key)) is None:
                continue
            member, strategy, labels = observed
            rolls = (strategy or default) == UpdateStrategy.ROLLING_UPDATE
            is_canary = bool(wanted) and wanted <= labels.items()
            members.append(
                member._replace(takes_part=member.takes_part and rolls, is_canary=is_canary)
            )
        return members


def _observe(key: Key, session: Manifest, before: _Observed | None) -> _Observed:
    spec, status = session.get("spec") or {}, session.get("status") or {}
    ready, degraded = condition(session, "Ready"), condition(session, "Degraded")
    is_degraded = degraded.get("status") == "True"
    cause = degraded if is_degraded and degraded["reason"] != Reason.ROLLOUT_HALTED else ready
    is_ready = status.get("phase") == Phase.READY
    valid = bool(status.get("sessionValid"))
    update = _parse_update(status.get("update"))
    is_deaf = is_degraded and degraded["reason"] == Reason.MESSAGES_NOT_HEARD
    is_failed = update is not None and update.failed
    is_stopped = bool(spec.get("suspend") or status.get("hibernation")) or is_terminating(session)
    is_held = is_degraded and degraded["reason"] in HELD
    node = status.get("nodeName")
    if node is None and update is not None and not update.done and before is not None:
        node = before.member.node  # its next pod may well come there again
    shows_cause = is_degraded or is_failed or not is_ready
    member = Member(
        key=key,
        revision=status.get("revision"),
        node=node,
        takes_part=bool(status.get("podUID")) and not is_stopped and not is_held,
        valid=valid,
        well=is_ready and valid and not is_deaf and not is_failed,
        may_recover=status.get("phase") in TRANSIENT,
        since=_time(ready.get("lastTransitionTime")),
        update=update,
        reason=str(cause.get("reason", "")) if shows_cause else "",
        message=str(cause.get("message", ""))[:512] if shows_cause else "",
    )
    labels = session["metadata"].get("labels") or {}
    return _Observed(member, spec.get("updateStrategy"), dict(labels))


def _parse_update(stored: Manifest | None) -> UpdateStatus | None:
    try:
        return None if stored is None else UpdateStatus.model_validate(stored)
    except ValidationError:  # edited by a person
        return None


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
