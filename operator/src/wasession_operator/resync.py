"""Periodic resync: what watch events do not cover."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from wasession_api.kube.client import Rejected, ResourceExpired, Unavailable
from wasession_api.kube.informer import is_worth_logging
from wasession_api.kube.manifests import Key, Manifest, controller
from wasession_api.v1alpha1 import KIND

from wasession_operator import metrics
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.session_watch import SessionWatch
from wasession_operator.sharding.shards import Shards

log = logging.getLogger(__name__)
VERIFY_INTERVAL = 60.0  # seconds
# To list a session costs about 0.1 ms of CPU: with many, the list is to cost 0.5 % of a core.
VERIFY_RATE = 50  # sessions a second


class Resync:
    """``missed`` is a session that kopf does not deliver, not even when it is started again."""

    def __init__(self, shards: Shards, watches: Sequence[SessionWatch]) -> None:
        self.missed: str | None = None
        self._shards = shards
        self._cache = shards.cache
        self._watches = watches
        # The API server's version, and in how many checks up to the last one it was not cached.
        self._outdated: dict[Key, tuple[str, int]] = {}
        self._failures: Counter[str | None] = Counter()  # lists in a row, by namespace

    async def run(self) -> None:
        """Resync until cancelled.

        The sessions are verified from the start: a watch that delivers none keeps the cache from
        ever being complete.
        """
        await asyncio.gather(self._verify_periodically(), self._enqueue_periodically())

    async def _enqueue_periodically(self) -> None:
        await self._cache.wait_for_sync()
        while True:
            await asyncio.sleep(self._shards.settings.cleanup_interval.total_seconds())
            self._report_orphaned_claims()
            self._shards.enqueue_all()

    def _report_orphaned_claims(self) -> None:
        """Report the claims that should have been deleted with their sessions, and were not.

        They may hold logins, so they are left alone. Kubernetes' garbage collector deletes what
        belongs to a session that is gone; it does not where somebody has disabled or orphaned it.
        """
        cache = self._cache
        uids = {session["metadata"]["uid"] for session in cache.sessions.values()}
        orphaned = []
        for key, claim in cache.pvcs.objects.items():
            owner = controller(claim) or {}
            if owner.get("kind") != KIND or not self._shards.holds((key[0], owner["name"])):
                continue
            if owner["uid"] not in uids and not is_terminating(claim):
                orphaned.append(key)
        metrics.ORPHANED_CLAIMS.set(len(orphaned))
        for namespace, name in orphaned:
            log.warning(
                "the volume claim of a deleted session was not deleted; delete it by hand",
                extra={"namespace": namespace, "pvc": name},
            )

    async def _verify_periodically(self) -> None:
        while True:
            await asyncio.sleep(verify_interval(len(self._cache.sessions)))
            await self._verify_cache()

    async def _verify_cache(self) -> None:
        """Compare the cached sessions with the API server's; costs one list of metadata.

        A list that works again tells that the API server answers: what could not be reconciled
        does not wait for its backoff, which minutes of failures have made minutes long.
        kopf does not report sessions that were deleted while its watch was down. A session that is
        outdated in two checks in a row, at the same version, shows that its watch is dead: kopf is
        started again. It is missed if that has not helped by the third check.
        """
        listed: dict[Key, str] = {}
        for namespace in self._cache.namespaces:
            try:
                listed |= await self._verify(namespace)
            except (Unavailable, Rejected, ResourceExpired) as error:
                self._failures[namespace] += 1
                if is_worth_logging(self._failures[namespace]):
                    log.warning(
                        "listing the sessions failed; they are not verified, retrying in %d s",
                        verify_interval(len(self._cache.sessions)),
                        extra={"namespace": namespace, "error": str(error)},
                    )
            else:
                if self._failures.pop(namespace, 0):
                    self._shards.enqueue_failed(namespace)
        outdated = {}
        for key, version in listed.items():
            before, checks = self._outdated.get(key, (version, 0))
            outdated[key] = version, checks + 1 if before == version else 1
        missed = [key for key, (_, checks) in outdated.items() if checks > 2]
        self._outdated, self.missed = outdated, "/".join(missed[0]) if missed else None
        self._restart_watches({key[0] for key, (_, checks) in outdated.items() if checks == 2})

    def _restart_watches(self, namespaces: Collection[str]) -> None:
        for watch in self._watches:
            if watch.namespace in namespaces or (watch.namespace is None and namespaces):
                log.warning(
                    "the watch of the sessions has missed changes; starting it again",
                    extra={"namespace": watch.namespace},
                )
                watch.restart()

    async def _verify(self, namespace: str | None) -> dict[Key, str]:
        """Forget sessions that are gone; return the outdated ones with the listed version."""
        cache = self._cache
        listed = await cache.list_sessions(namespace)
        cached = {
            key: session for key, session in cache.sessions.items() if namespace in (None, key[0])
        }
        missing = cached.keys() - listed.keys()
        if missing:
            # One created after the first list is in the second.
            missing -= (await cache.list_sessions(namespace)).keys()
        for key in missing:
            uid = cached[key]["metadata"]["uid"]
            log.info(
                "session was deleted without a watch event; forgetting it",
                extra={"namespace": key[0], "session": key[1], "uid": uid},
            )
            cache.delete_session(key, uid)
        return find_outdated(listed, cached)


def verify_interval(sessions: int) -> float:
    """Return the seconds between two checks of so many cached sessions."""
    return max(VERIFY_INTERVAL, sessions / VERIFY_RATE)


def find_outdated(listed: Mapping[Key, Manifest], cached: Mapping[Key, Manifest]) -> dict[Key, str]:
    """Return the sessions whose cached version is not the listed one, with the latter."""
    before = {key: session["metadata"]["resourceVersion"] for key, session in cached.items()}
    now = {key: session["metadata"]["resourceVersion"] for key, session in listed.items()}
    return {key: version for key, version in now.items() if before.get(key) != version}
