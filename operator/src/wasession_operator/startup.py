"""Startup: lists the sessions; restores those of a shard, and logs the restoration's progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from wasession_api.kube.client import Rejected, ResourceExpired, Unavailable
from wasession_api.kube.manifests import Key, Manifest, condition
from wasession_api.v1alpha1 import ConditionType, Phase

from wasession_operator.backoff import next_backoff
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.controller import Controller
from wasession_operator.plan import Backoff

log = logging.getLogger(__name__)
POLL_INTERVAL = 0.2  # seconds
RELIST_AFTER = 10.0  # seconds
PROGRESS_INTERVAL = 10.0  # seconds between two log lines


class Restoration(StrEnum):
    """How far a session with a valid login has come since its shard was acquired."""

    RESTORED = "restored"
    STALLED = "stalled"
    PENDING = "pending"
    DELETED = "deleted"


async def list_sessions(cache: ClusterCache) -> None:
    """Return once all sessions are in the cache; note each namespace that is complete.

    kopf delivers sessions one by one and does not mark the last one. A namespace that cannot be
    listed holds up no other; it is tried again until it can.
    """
    await asyncio.gather(*(_list_namespace(cache, namespace) for namespace in cache.namespaces))


async def _list_namespace(cache: ClusterCache, namespace: str | None) -> None:
    backoff = Backoff()
    while True:
        try:
            listed = await cache.list_sessions(namespace)
        except (Unavailable, Rejected, ResourceExpired) as error:
            cache.sessions_listed(namespace, known=False)
            backoff = next_backoff(backoff)
            delay = backoff.wait(datetime.now(UTC)).total_seconds()
            log.warning(
                "listing the sessions failed; none of them is reconciled until it succeeds, "
                "retrying in %.0f s",
                delay,
                extra={"namespace": namespace, "error": str(error)},
            )
            await asyncio.sleep(delay)
        else:
            if await _are_cached(cache, set(listed)):
                cache.sessions_listed(namespace, known=True)
                return


async def _are_cached(cache: ClusterCache, missing: set[Key]) -> bool:
    """Wait until sessions are in the cache; False if they are not soon: some may be gone by now."""
    deadline = time.monotonic() + RELIST_AFTER
    while missing := {key for key in missing if key not in cache.sessions}:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_INTERVAL)
    return True


async def restore(controller: Controller, sessions: Mapping[Key, Manifest], delay: float) -> None:
    """Let the sessions of a shard start; return when all are restored or stalled.

    Those that are starting count from the beginning; of the others, valid logins come first. How
    far updates are is known when all sessions have been reconciled once. ``delay`` is in seconds.
    """
    await asyncio.sleep(delay)
    valid, pending = 0, set()
    for key in controller.states:
        session = sessions.get(key)  # once: it is decoded each time
        if _is_valid(session):
            valid += 1
            if restoration(session) is Restoration.PENDING:
                pending.add(key)
    counts = {"sessions": len(controller.states), "valid": valid, "to_restore": len(pending)}
    log.info(
        "%(sessions)d sessions, %(valid)d with a valid login, %(to_restore)d to restore",
        counts,
        extra=counts,
    )
    await asyncio.sleep(0)  # with thousands of sessions, each step takes up to a second
    controller.open_starts()
    await controller.wait_until_reconciled()
    controller.updates.open()
    await _log_progress(sessions, pending)


async def _log_progress(sessions: Mapping[Key, Manifest], keys: set[Key]) -> None:
    """Log how many sessions are restored, when that has changed, until none is pending."""
    began, logged, pending = time.monotonic(), None, bool(keys)
    while pending:
        await asyncio.sleep(PROGRESS_INTERVAL)
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


def _is_valid(session: Manifest | None) -> bool:
    return bool(((session or {}).get("status") or {}).get("sessionValid"))
