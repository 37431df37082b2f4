"""Finds the backups that a cluster does not know, or knows no longer, in the store."""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError
from wasession_api.kube.client import (
    BACKUPS,
    NAMESPACES,
    Conflict,
    KubeClient,
    Rejected,
    Unavailable,
)
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.backup import ArchiveManifest
from wasession_api.v1alpha1 import API_VERSION, BACKUP_KIND, BackupSpec

from wasession_operator.backups.backup import is_below, parse_backup
from wasession_operator.backups.store import Store, StoreError
from wasession_operator.plan.manifests import is_terminating
from wasession_operator.sharding.shards import Shards

log = logging.getLogger(__name__)


class StoreSync:
    """Creates a WhatsAppSessionBackup for each complete archive that has none.

    So a cluster that was built anew knows its backups again, as with Velero. Those of a namespace
    are created by the replica that leads it.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._store = shards.store
        self._backups = shards.cache.backups
        self._reported: set[str] = set()  # keys of archives of which nothing can be made

    async def run(self) -> None:
        """Compare the store with the cluster periodically, until cancelled."""
        interval = self._shards.settings.backup_sync_interval.total_seconds()
        while self._store is not None:
            await self.sync(self._store)
            await asyncio.sleep(interval)

    async def sync(self, store: Store) -> None:
        """Create what is missing; what fails is tried again the next time."""
        try:
            namespaces = self._shards.settings.namespaces or await store.namespaces()
            for namespace in namespaces:
                kube = self._shards.leader_client(namespace)
                if kube is not None and await self._is_served(kube, namespace):
                    await self._sync_namespace(kube, store, namespace)
        except (StoreError, Unavailable, Rejected) as error:
            log.warning(
                "comparing the store of backups with the cluster failed; trying again later",
                extra={"error": str(error)},
            )

    async def _is_served(self, kube: KubeClient, name: str) -> bool:
        """Return whether backups can be created in a namespace: it may be one of another cluster.

        Where the operator may not read namespaces, it knows by their names which ones to serve.
        """
        if not self._backups.informer.has_synced(name):
            return False
        try:
            namespace = await kube.get(NAMESPACES, None, name, metadata=True)
        except Rejected:
            return bool(self._shards.settings.namespaces)
        return namespace is not None and not is_terminating(namespace)

    async def _sync_namespace(self, kube: KubeClient, store: Store, namespace: str) -> None:
        for key in await store.keys(namespace):
            if self._backups.with_archive(key) or key in self._reported:
                continue
            archive = await store.look(key)
            if archive.size is None or not archive.has_manifest:
                continue  # it was deleted meanwhile
            try:
                await self._create(kube, namespace, key, archive.manifest)
            except (Rejected, ValueError) as error:
                self._reported.add(key)
                log.warning(
                    "an archive in the store cannot have a WhatsAppSessionBackup; leaving it alone",
                    extra={"namespace": namespace, "archive": key, "error": _describe(error)},
                )

    async def _create(
        self, kube: KubeClient, namespace: str, key: str, manifest: ArchiveManifest | None
    ) -> None:
        """Create the backup under its former name, or under another one if that is taken.

        Raise ``ValueError`` if that is not possible.
        """
        if manifest is None or not is_below(key, namespace):
            raise ValueError("it has no valid manifest")
        for name in (manifest.backup_name, f"{manifest.backup_name}-{manifest.backup_uid[:8]}"):
            try:
                created = await kube.create(BACKUPS, make_backup(namespace, name, key, manifest))
            except Conflict:
                present = await kube.get(BACKUPS, namespace, name)
                if present is not None and parse_backup(present).archive == key:
                    return  # its watch event has not come yet
            else:
                self._backups.informer.upsert(created)
                log.info(
                    "backup %s was found in the store",
                    name,
                    extra={"namespace": namespace, "backup": name, "archive": key},
                )
                return
        raise ValueError("the names that its backup could have are taken")


def make_backup(namespace: str, name: str, key: str, manifest: ArchiveManifest) -> Manifest:
    """Return the backup of an archive that is in the store; ``ValueError`` for an invalid one."""
    spec = BackupSpec(session_name=manifest.source.session_name, key=key)
    return {
        "apiVersion": API_VERSION,
        "kind": BACKUP_KIND,
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec.dump(),
    }


def _describe(error: Exception) -> str:
    """Return what is wrong, without the values."""
    return "its manifest has invalid values" if isinstance(error, ValidationError) else str(error)
