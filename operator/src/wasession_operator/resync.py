"""Periodic resync: what watch events do not cover."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from wasession_api.kube import manifests
from wasession_api.kube.client import (
    SECRETS,
    Conflict,
    KubeClient,
    Rejected,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest

from wasession_operator.cluster_cache import object_key
from wasession_operator.controller import Controller

log = logging.getLogger(__name__)
VERIFY_INTERVAL = 60.0  # seconds


class Resync:
    """``missed`` is a session whose changes kopf no longer delivers: its watch is dead."""

    def __init__(self, controller: Controller, kube: KubeClient) -> None:
        self.missed: str | None = None
        self._controller = controller
        self._kube = kube
        self._outdated: dict[Key, str] = {}  # of the last check, with the API server's version

    async def run(self) -> None:
        """Resync until cancelled, from when the informers have synced."""
        await self._controller.cache.wait_for_sync()
        interval = self._controller.settings.cleanup_interval.total_seconds()
        await asyncio.gather(
            self._every(VERIFY_INTERVAL, self._verify_cache),
            self._every(interval, self._resync),
        )

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except (Unavailable, Rejected, Conflict, ResourceExpired) as error:
                log.warning("resync failed; retrying in %d s", seconds, extra={"error": str(error)})

    async def _resync(self) -> None:
        """Delete the Secrets of sessions that are gone, and reconcile every session."""
        cache = self._controller.cache
        uids = {session["metadata"]["uid"] for session in cache.sessions.values()}
        in_use = {object_key(key) for key in cache.sessions}
        for key, secret in list(cache.secrets.objects.items()):
            owner, metadata = manifests.controller(secret), secret["metadata"]
            age = datetime.now(UTC) - datetime.fromisoformat(metadata["creationTimestamp"])
            orphaned = key not in in_use and (owner is None or owner["uid"] not in uids)
            if orphaned and age > self._controller.settings.cleanup_interval:
                await self._kube.delete(SECRETS, *key, metadata["uid"])
                log.info("orphaned Secret deleted", extra={"namespace": key[0], "secret": key[1]})
        self._controller.enqueue_all()

    async def _verify_cache(self) -> None:
        """Compare the cached sessions with the API server's; costs one list of metadata.

        kopf does not report sessions that were deleted while its watch was down. A session that is
        outdated in two checks in a row, at the same version, shows that its watch is dead.
        """
        cache = self._controller.cache
        listed = await cache.list_sessions()
        missing = cache.sessions.keys() - listed.keys()
        if missing:
            # One created after the first list is in the second.
            missing -= (await cache.list_sessions()).keys()
        for namespace, name in missing:
            uid = cache.sessions[namespace, name]["metadata"]["uid"]
            log.info(
                "session was deleted without a watch event; forgetting it",
                extra={"namespace": namespace, "session": name, "uid": uid},
            )
            cache.delete_session((namespace, name), uid)
        outdated = find_outdated(listed, cache.sessions)
        missed = [key for key, version in outdated.items() if self._outdated.get(key) == version]
        self._outdated, self.missed = outdated, "/".join(missed[0]) if missed else None


def find_outdated(listed: Mapping[Key, Manifest], cached: Mapping[Key, Manifest]) -> dict[Key, str]:
    """Return the sessions whose cached version is not the listed one, with the latter."""
    before = {key: session["metadata"]["resourceVersion"] for key, session in cached.items()}
    now = {key: session["metadata"]["resourceVersion"] for key, session in listed.items()}
    return {key: version for key, version in now.items() if before.get(key) != version}
