"""What is done for all sessions at once: the restoration after a start, and the look after what events can't tell."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from wasession_api.kube.client import (
    SECRETS,
    SESSIONS,
    Conflict,
    KubeClient,
    Rejected,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.manifests import Key, Manifest, controller

from wasession_operator import cache_transform as kept
from wasession_operator import metrics
from wasession_operator.cluster_cache import is_over, key_of, object_key
from wasession_operator.reconcile import Operator

log = logging.getLogger(__name__)
CHECK_EVERY = 60.0  # seconds between two comparisons of the sessions with the API server's
PROGRESS_EVERY = 10.0  # seconds between two log lines about the restoration


class Upkeep:
    """``run`` it as long as the operator lives."""

    def __init__(self, operator: Operator, kube: KubeClient) -> None:
        self.missed: str | None = (
            None  # a session whose change has not been told: the watch of sessions is dead
        )
        self._operator = operator
        self._kube = kube
        self._behind: dict[Key, str] = {}

    async def run(self) -> None:
        """Never returns."""
        await self._operator.cluster.synced()
        await asyncio.gather(
            self._restore(), self._repeat(CHECK_EVERY, self._check), self._clean_up()
        )

    # --- after the start --------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Lets sessions start, once it is known which there are; tells how it goes."""
        settings, cluster = self._operator.settings, self._operator.cluster
        await asyncio.sleep(settings.restoration_delay.total_seconds())
        await self._all_seen()
        valid = {
            key
            for key, body in cluster.sessions.items()
            if (body.get("status") or {}).get("sessionValid")
        }
        left = {key for key in valid if self._state(key) == "under way"}
        counts = {"sessions": len(cluster.sessions), "valid": len(valid), "to_restore": len(left)}
        log.info(
            "%(sessions)d sessions, %(valid)d with a valid login, %(to_restore)d to restore",
            counts,
            extra=counts,
        )
        self._operator.starts.open()
        self._operator.updates.open()
        began, told = time.monotonic(), None
        while left:
            await asyncio.sleep(PROGRESS_EVERY)
            found = Counter(self._state(key) for key in left)
            progress = {name: found[name] for name in ("restored", "held up", "under way", "gone")}
            if progress != told:
                told, seconds = progress, round(time.monotonic() - began)
                words = ", ".join(f"{number} {name}" for name, number in progress.items() if number)
                log.info(
                    "restoration after %d s: %s",
                    seconds,
                    words,
                    extra={**progress, "seconds": seconds},
                )
            if not found["under way"]:
                return

    async def _all_seen(self) -> None:
        """Waits until every session has been looked at once; kopf tells of them one by one."""
        while True:
            try:
                expected = {
                    key for key, item in (await self._listed()).items() if not is_over(item)
                }
            except (Unavailable, Rejected, ResourceExpired) as error:
                log.warning("sessions can't be listed", extra={"error": str(error)})
                expected = None
            if expected is not None and all(self._is_known(key) for key in expected):
                return
            await asyncio.sleep(0.5)

    def _is_known(self, key: Key) -> bool:
        memory = self._operator.memories.get(key)
        return memory is not None and memory.looked_at

    def _state(self, key: Key) -> str:
        body = self._operator.cluster.sessions.get(key)
        if body is None:
            return "gone"
        status = body.get("status") or {}
        if status.get("phase") == "Ready":
            return "restored"
        conditions = {
            condition["type"]: condition["status"] for condition in status.get("conditions") or []
        }
        held_up = (
            conditions.get("Degraded") == "True"
            or not status.get("sessionValid")
            or body["spec"].get("suspend")
        )
        return "held up" if held_up else "under way"

    # --- from time to time ------------------------------------------------------------------------

    async def _repeat(self, seconds: float, work: Any) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except (Unavailable, Rejected, Conflict, ResourceExpired) as error:
                log.warning(
                    "upkeep put off", extra={"work": work.__name__.strip("_"), "error": str(error)}
                )

    async def _clean_up(self) -> None:
        await self._repeat(self._operator.settings.cleanup_interval.total_seconds(), self._clean)

    async def _clean(self) -> None:
        """Deletes Secrets whose session is gone, and has every session looked at again."""
        cluster = self._operator.cluster
        present = {body["metadata"]["uid"] for body in cluster.sessions.values()}
        used = {object_key(key) for key in cluster.sessions}
        for key, secret in list(cluster.secrets.objects.items()):
            owner, metadata = controller(secret), secret["metadata"]
            age = datetime.now(UTC) - datetime.fromisoformat(metadata["creationTimestamp"])
            orphaned = key not in used and (owner is None or owner["uid"] not in present)
            if orphaned and age > self._operator.settings.cleanup_interval:
                await self._kube.delete(SECRETS, *key, metadata["uid"])
                log.info("orphaned Secret deleted", extra={"namespace": key[0], "secret": key[1]})
        self._operator.wake_all()

    async def _check(self) -> None:
        """Compares what kopf has told of the sessions with what the API server has; costs one read.

        kopf does not tell of sessions that went away while its watch was cut off. And a session
        that is behind at two checks in a row, at the same version, shows that its watch is dead.
        """
        cluster = self._operator.cluster
        listed = await self._listed()
        missing = cluster.sessions.keys() - listed.keys()
        if missing:
            missing -= (await self._listed()).keys()  # one that was created in between is there now
        for key in missing:
            uid = cluster.sessions[key]["metadata"]["uid"]
            log.info("session is gone", extra={"namespace": key[0], "session": key[1], "uid": uid})
            self._operator.gone(key, uid)
        found = behind(listed, cluster.sessions)
        still = [key for key, version in found.items() if self._behind.get(key) == version]
        self._behind, self.missed = found, "/".join(still[0]) if still else None

    async def _listed(self) -> dict[Key, Manifest]:
        """The sessions that are served, with the metadata that the API server has of them."""
        found: dict[Key, Manifest] = {}
        for place in self._operator.settings.namespaces or (None,):
            async for page in self._kube.pages(SESSIONS, place, metadata=True):
                found |= {key_of(item): kept.session(item) for item in page["items"]}
        return found

    def observe(self) -> None:
        """Sets the metrics that are taken when somebody asks for them."""
        metrics.observe_sessions(self._operator.cluster.sessions.values())
        for watch in self._operator.cluster.watches:
            metrics.INFORMER_LAST_EVENT_AGE.labels(watch.resource.plural).set(watch.age)


def behind(listed: Mapping[Key, Manifest], seen: Mapping[Key, Manifest]) -> dict[Key, str]:
    """The sessions that are not as the API server has them, with the version that it has."""
    had = {key: body["metadata"]["resourceVersion"] for key, body in seen.items()}
    has = {key: body["metadata"]["resourceVersion"] for key, body in listed.items()}
    return {key: version for key, version in has.items() if had.get(key) != version}
