"""Gives each gateway the key of its sessions' namespace; follows changes of the master key."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from wasession_api import names
from wasession_api.kube.client import SECRETS, Conflict, KubeClient, Rejected, Unavailable
from wasession_api.kube.manifests import Manifest

from wasession_operator.backoff import next_backoff
from wasession_operator.master_key import MasterKey
from wasession_operator.plan import Backoff
from wasession_operator.settings import GatewayKey

log = logging.getLogger(__name__)
POLL_INTERVAL = 10.0  # seconds between two looks at the master key's file
RESYNC = timedelta(minutes=10)  # a Secret that somebody has deleted or edited is back by then


class GatewayKeys:
    """Applies the Secrets; ``on_change`` is called when the master key has changed.

    Those of a sessions' namespace are applied by the replica that leads it.
    """

    def __init__(
        self,
        leader_client: Callable[[str], KubeClient | None],
        master_key: MasterKey,
        targets: list[GatewayKey],
        on_change: Callable[[], None],
    ) -> None:
        self._leader_client = leader_client
        self._master_key = master_key
        self._targets = targets
        self._on_change = on_change
        self._pending = dict.fromkeys(targets, Backoff())

    async def run(self) -> None:
        """Apply the Secrets until cancelled: after a failure, with a new key, and periodically."""
        resync_at = datetime.now(UTC) + RESYNC
        while True:
            await self._apply_pending()
            await asyncio.sleep(POLL_INTERVAL)
            changed = self._master_key.refresh()
            if changed:
                log.info("the master key has changed; all sessions get tokens of the new one")
                self._on_change()
            if changed or datetime.now(UTC) >= resync_at:
                self._pending = dict.fromkeys(self._targets, Backoff())
                resync_at = datetime.now(UTC) + RESYNC

    async def _apply_pending(self) -> None:
        for target, backoff in list(self._pending.items()):
            kube = self._leader_client(target.sessions_namespace)
            if kube is None or backoff.wait(datetime.now(UTC)) > timedelta(0):
                continue
            key = self._master_key.of(target.sessions_namespace)
            try:
                await kube.apply(SECRETS, make_key_secret(target, key))
            except (Rejected, Conflict, Unavailable) as error:
                self._pending[target] = next_backoff(backoff)
                log.warning(
                    "applying the Secret with the gateway's key failed; retrying",
                    extra={
                        "namespace": target.secret_namespace,
                        "secret": target.secret_name,
                        "sessions_namespace": target.sessions_namespace,
                        "error": str(error),
                    },
                )
            else:
                del self._pending[target]


def make_key_secret(target: GatewayKey, key: bytes) -> Manifest:
    """Return the Secret that a gateway mounts. Its value is text: the key in base64."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": target.secret_namespace,
            "name": target.secret_name,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
        },
        "data": {"session-key": b64encode(b64encode(key)).decode()},
    }
