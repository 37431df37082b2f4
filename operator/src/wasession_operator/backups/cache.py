"""The cache of WhatsAppSessionBackups, and of which sessions they concern."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from wasession_api.kube.client import BACKUPS, KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, key_of
from wasession_api.v1alpha1 import BackupMethod, BackupPhase, BackupStatus

from wasession_operator.backups.backup import Backup, is_below, parse_backup, transform
from wasession_operator.cache_transform import PackedStore

log = logging.getLogger(__name__)


class BackupCache:
    """``enqueue`` is called with each session that a change of a backup concerns.

    ``changed`` is called with the key of each backup that has changed.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespaces: Sequence[str],
        enqueue: Callable[[Key], None],
        on_sync: Callable[[str | None], None],
    ) -> None:
        self.informer = Informer(
            kube, BACKUPS, namespaces, "", self._changed, transform, PackedStore(), on_sync
        )
        self.cluster = ""  # UID of the namespace kube-system; empty while it is not known
        self.changed: Callable[[Key], None] = lambda _: None
        self._enqueue = enqueue
        # The sessions of the backups with which something is left to do, and of those that are
        # being uploaded.
        self.open: dict[Key, Key] = {}
        self.running: dict[Key, Key] = {}
        self.own_schedules: dict[Key, Manifest] = {}  # spec.backup of the sessions that set it
        self._imports: defaultdict[Key, set[Key]] = defaultdict(set)  # open ones, by their source
        # By session: when each of its backups was taken; None while it is not completed.
        self._of: defaultdict[Key, dict[str, datetime | None]] = defaultdict(dict)
        self._archives: dict[str, tuple[str, ...]] = {}  # by key: the names of their backups
        self._bootstraps: dict[Key, Key] = {}  # sessions, and the backups that they begin with
        self._awaiting: defaultdict[Key, set[Key]] = defaultdict(set)  # the inverse

    # --- backups ----------------------------------------------------------------------------------

    def get(self, namespace: str, name: str) -> Backup | None:
        """Return a backup as the API server has it; None if it does not exist or is invalid."""
        obj = self.informer.objects.get((namespace, name))
        return None if obj is None else _parse(obj)

    def completed(self, namespace: str, name: str) -> tuple[str, BackupStatus] | None:
        """Return UID and status of a completed backup that is to stay."""
        backup = self.get(namespace, name)
        if backup is None or not _is_completed(backup):
            return None
        return backup.uid, backup.status

    def last_completed(self, session: Key) -> datetime | None:
        """Return of which moment the latest completed backup of a session is.

        One of another namespace's session does not count: it only shares a name.
        """
        return max(filter(None, self._of.get(session, {}).values()), default=None)

    def of(self, session: Key) -> Iterator[Backup]:
        """Yield the backups of a session."""
        for name in list(self._of.get(session, ())):
            if (backup := self.get(session[0], name)) is not None:
                yield backup

    def is_running(self, session: Key) -> bool:
        """Return whether one of a session's backups is being uploaded, by its pod."""
        return session in self.running.values()

    def open_of(self, session: Key) -> list[Key]:
        """Return the backups of a session with which something is left to do."""
        own = ((session[0], name) for name in self._of.get(session, ()))
        return [key for key in own if key in self.open]

    def with_archive(self, archive: str) -> tuple[str, ...]:
        """Return the names of the backups of an archive, which are in its namespace."""
        return self._archives.get(archive, ())

    def _changed(self, before: Manifest | None, after: Manifest | None) -> None:
        old = None if before is None else _parse(before)
        new = None if after is None else _parse(after)
        if old is not None:
            self._remove(old)
        if new is not None:
            self._add(new)
        backup = new or old
        if backup is None:
            return
        if (old is not None and _is_completed(old)) or (new is not None and _is_completed(new)):
            self._enqueue(backup.session)
        for session in self._awaiting.get(backup.key, ()):
            self._enqueue(session)
        self.changed(backup.key)
        for key in list(self._imports.get(backup.key, ())):
            self.changed(key)

    def _add(self, backup: Backup) -> None:
        counts = _is_completed(backup) and not backup.is_foreign
        taken = backup.status.taken_at if counts else None
        self._of[backup.session][backup.name] = taken
        if (archive := _own_archive(backup)) is not None:
            self._archives[archive] = *self._archives.get(archive, ()), backup.name
        if backup.is_open:
            self.open[backup.key] = backup.session
        if (wanted := _wanted(backup)) is not None:
            self._imports[wanted].add(backup.key)
        uploads = backup.spec.method is BackupMethod.ARCHIVE and backup.spec.import_from is None
        if uploads and backup.status.phase is BackupPhase.RUNNING and not backup.is_terminating:
            self.running[backup.key] = backup.session

    def _remove(self, backup: Backup) -> None:
        _discard(self._of, backup.session, backup.name)
        if (archive := _own_archive(backup)) is not None:
            others = tuple(name for name in self._archives[archive] if name != backup.name)
            if others:
                self._archives[archive] = others
            else:
                del self._archives[archive]
        if (wanted := _wanted(backup)) is not None:
            _discard(self._imports, wanted, backup.key)
        self.open.pop(backup.key, None)
        self.running.pop(backup.key, None)

    # --- sessions ---------------------------------------------------------------------------------

    def upsert_session(self, key: Key, session: Manifest) -> None:
        """Note which backup a session begins with, and its schedule."""
        spec = session.get("spec") or {}
        if (own := spec.get("backup")) is not None:
            self.own_schedules[key] = own
        else:
            self.own_schedules.pop(key, None)
        name = ((spec.get("bootstrap") or {}).get("fromBackup") or {}).get("name")
        wanted = None if name is None else (key[0], name)
        if (former := self._bootstraps.get(key)) == wanted:
            return
        if former is not None:
            _discard(self._awaiting, former, key)
            del self._bootstraps[key]
        if wanted is not None:
            self._bootstraps[key] = wanted
            self._awaiting[wanted].add(key)

    def delete_session(self, key: Key) -> None:
        """Forget what ``upsert_session`` has noted."""
        self.own_schedules.pop(key, None)
        if (former := self._bootstraps.pop(key, None)) is not None:
            _discard(self._awaiting, former, key)


def _parse(obj: Manifest) -> Backup | None:
    try:
        return parse_backup(obj)
    except ValidationError:
        namespace, name = key_of(obj)
        log.warning(
            "WhatsAppSessionBackup %s has a spec that this version does not know; leaving it alone",
            name,
            extra={"namespace": namespace, "backup": name},
        )
        return None


def _is_completed(backup: Backup) -> bool:
    return backup.status.phase is BackupPhase.COMPLETED and not backup.is_terminating


def _wanted(backup: Backup) -> Key | None:
    """Return the key of the backup that an import is still to copy."""
    source = backup.spec.import_from
    if source is None or not backup.is_open or backup.is_terminating:
        return None
    return source.namespace, source.name


def _own_archive(backup: Backup) -> str | None:
    """Return the key of the backup's archive, unless it is one of another namespace."""
    key = backup.archive
    return key if key is not None and is_below(key, backup.namespace) else None


def _discard(index: Any, key: Key, member: Any) -> None:
    """Remove a member of a set or dict that an index has; an empty one goes too."""
    members = index.get(key)
    if members is None:
        return
    if isinstance(members, set):
        members.discard(member)
    else:
        members.pop(member, None)
    if not members:
        del index[key]
