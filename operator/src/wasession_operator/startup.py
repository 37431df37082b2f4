"""Startup gating: no pod starts before all sessions are known; then the restoration's progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from enum import StrEnum

from wasession_api.kube.client import Rejected, ResourceExpired, Unavailable
from wasession_api.kube.manifests import Key, Manifest, condition
from wasession_api.v1alpha1 import ConditionType, Phase

from wasession_operator.cluster_cache import is_released
from wasession_operator.controller import Controller

log = logging.getLogger(__name__)
POLL_INTERVAL = 0.5  # seconds
PROGRESS_INTERVAL = 10.0  # seconds between two log lines


class Restoration(StrEnum):
    """How far a session with a valid login has come since the operator's start."""

    RESTORED = "restored"
    STALLED = "stalled"
    PENDING = "pending"
    DELETED = "deleted"


async def run(controller: Controller) -> None:
    """Let sessions start once all have been reconciled; return when all are restored or stalled."""
    await controller.cache.wait_for_sync()
    await asyncio.sleep(controller.settings.restoration_delay.total_seconds())
    await _wait_until_all_are_reconciled(controller)
    sessions = controller.cache.sessions
    valid = {key for key, session in sessions.items() if _is_valid(session)}
    pending = {key for key in valid if restoration(sessions.get(key)) is Restoration.PENDING}
    counts = {"sessions": len(sessions), "valid": len(valid), "to_restore": len(pending)}
    log.info(
        "%(sessions)d sessions, %(valid)d with a valid login, %(to_restore)d to restore",
        counts,
        extra=counts,
    )
    controller.starts.open()
    controller.updates.open()
    await _log_progress(controller, pending)


async def _wait_until_all_are_reconciled(controller: Controller) -> None:
    """Wait until each session that the API server has was reconciled once.

    kopf delivers sessions one by one and does not mark the last one. A namespace that cannot be
    served now does not hold up the others.
    """
    pending = set(controller.cache.namespaces)
    while pending:
        for namespace in list(pending):
            if await _is_all_reconciled(controller, namespace):
                pending.remove(namespace)
        if pending:
            await asyncio.sleep(POLL_INTERVAL)


async def _is_all_reconciled(controller: Controller, namespace: str | None) -> bool:
    if not controller.cache.is_served(namespace):
        return True
    try:
        sessions = await controller.cache.list_sessions(namespace)
    except (Unavailable, Rejected, ResourceExpired) as error:
        rejected = isinstance(error, Rejected)
        follows = "others start" if rejected else "no session starts until it succeeds"
        log.warning(
            "listing the sessions failed; %s",
            follows,
            extra={"namespace": namespace, "error": str(error)},
        )
        return rejected
    return all(
        _is_reconciled(controller, key)
        for key, session in sessions.items()
        if not is_released(session)
    )


def _is_reconciled(controller: Controller, key: Key) -> bool:
    state = controller.states.get(key)
    return state is not None and state.reconciled


async def _log_progress(controller: Controller, keys: set[Key]) -> None:
    """Log how many sessions are restored, when that has changed, until none is pending."""
    began, logged, pending = time.monotonic(), None, bool(keys)
    while pending:
        await asyncio.sleep(PROGRESS_INTERVAL)
        sessions = controller.cache.sessions
        counts = Counter(restoration(sessions.get(key)) for key in keys)
        progress = {str(outcome): counts[outcome] for outcome in Restoration}
        pending = counts[Restoration.PENDING] > 0
        if progress != logged:
            logged, seconds = progress, round(time.monotonic() - began)
            summary = ", ".join(
                f"{number} {outcome}" for outcome, number in progress.items() if number
            )
            log.info(
                "restoration after %d s: %s",
                seconds,
                summary,
                extra={**progress, "seconds": seconds},
            )


def restoration(session: Manifest | None) -> Restoration:
    """Return how far a session is; None is one that does not exist any more."""
    if session is None:
        return Restoration.DELETED
    if (session.get("status") or {}).get("phase") == Phase.READY:
        return Restoration.RESTORED
    degraded = condition(session, ConditionType.DEGRADED).get("status") == "True"
    if degraded or not _is_valid(session) or session["spec"].get("suspend"):
        return Restoration.STALLED
    return Restoration.PENDING


def _is_valid(session: Manifest) -> bool:
    return bool((session.get("status") or {}).get("sessionValid"))
