"""The session's volume: its owner, whether it is usable, and the browser profile on it.

Nothing here deletes a login. A profile that is damaged, or whose login WhatsApp has ended, is
quarantined: renamed on the same volume. A volume of another session is left alone and reported.
Quarantined profiles are removed after their retention, or for lack of space, but never while one
may hold the only copy of a valid login.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from wasession_api.session_pod.backup import Restoration
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import LastShutdown, Reason

from wasession_pod.volume import access, snapshots
from wasession_pod.volume.snapshots import Manifest, Part, SnapshotError

SINGLETONS = ("SingletonLock", "SingletonCookie", "SingletonSocket")
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
QUARANTINED = re.compile(r"\.(logged-out|damaged)-(\d{8}T\d{6}Z)(-\d+)?")
# What Chromium and WhatsApp Web can load again, in a profile; no part of a login.
CACHES = (
    "Default/Cache", "Default/Code Cache", "Default/GPUCache", "Default/DawnGraphiteCache",
    "Default/DawnWebGPUCache", "Default/Service Worker/CacheStorage", "GraphiteDawnCache",
    "GrShaderCache", "ShaderCache", "component_crx_cache", "extensions_crx_cache",
)  # fmt: skip
# A restoration in progress, and one that is complete but not in place yet.
RESTORING, RESTORED = "restoring", "restored"
MIB = 2**20
M = TypeVar("M", bound=BaseModel)
log = logging.getLogger(__name__)


class StorageError(Exception):
    """The volume can't be used at present; the message is a sentence."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Owner(BaseModel):
    """The volume's owner. The client id never changes; adoption brings a new session UID.

    ``owner`` is the session's; empty when it has none, None when it is not known.
    """

    client_id: str
    session_uid: str | None
    owner: str | None = None


def login_id(account: str, since: datetime) -> str:
    """Return what identifies the login of an account that there is since then."""
    content = f"{account} {since.astimezone(UTC).isoformat()}"
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class Login(BaseModel):
    """The valid login: written once it is safe on disk, deleted once WhatsApp has ended it."""

    account: str
    since: datetime
    phone_last_seen: datetime | None = None  # the last activity of the account's phone

    @property
    def id(self) -> str:
        """What all copies of the login have in common, and no other login has."""
        return login_id(self.account, self.since)


class LogoutRequest(BaseModel):
    """The latest logout requested with an id; it outlives the profile, to be done only once."""

    request: str
    done: bool = False


class Displacement(BaseModel):
    """That another browser has a login of this volume: no browser starts with it by itself.

    It counts for that login and that session alone, and until a person asks for a restart: the
    request that the session's pod fulfils is then another one than ``restart``.
    """

    at: datetime
    login: str | None
    session_uid: str | None
    restart: str | None


class Run(BaseModel):
    """The profile's latest use; ``stopped_at`` is set only by a graceful stop."""

    started_at: datetime
    stopped_at: datetime | None = None


class RestorationRecord(Restoration):
    """What became of a restoration; ``login`` tells the restored login apart from later ones."""

    login: datetime | None = None


class Source(StrEnum):
    """Where the login of a replacement profile comes from."""

    PROFILE = "Profile"  # the damaged profile, whose login is intact
    SNAPSHOT = "Snapshot"  # the last snapshot, for the damaged parts
    NOTHING = "Nothing"  # nowhere: the profile is empty, and a phone must be linked


class Repair(BaseModel):
    """How a damaged profile was replaced; on disk until a login is good, to try nothing twice."""

    source: Source
    because: str
    snapshot: datetime | None = None
    quarantined_as: str

    @property
    def message(self) -> str:
        outcome = {
            Source.PROFILE: "Its login was moved to a new profile.",
            Source.SNAPSHOT: "The login was restored from the snapshot of "
            f"{self.snapshot:%Y-%m-%d %H:%M} UTC."
            if self.snapshot
            else "",
            Source.NOTHING: "No usable snapshot is left, so a phone must be linked.",
        }
        return (
            f"The profile was damaged ({self.because}) and is quarantined as "
            f"{self.quarantined_as}. {outcome[self.source]}"
        )


def next_source(
    earlier: Repair | None, damaged: Collection[Part], has_snapshot: bool
) -> Source | None:
    """Return the source for the next profile; None if nothing is left to try or would help."""
    if earlier is not None and earlier.source is Source.NOTHING:
        return None
    if not damaged:
        return Source.PROFILE if earlier is None else None
    if has_snapshot and (earlier is None or earlier.source is Source.PROFILE):
        return Source.SNAPSHOT
    return Source.NOTHING


class Content(NamedTuple):
    """What an open volume holds besides the profile."""

    login: Login | None
    has_login: bool | None  # None for a record of a login that is not readable
    snapshot: Manifest | None
    repair: Repair | None
    can_fall_back: bool  # ``replace_profile`` has a source left
    fulfilled_logout: str | None  # the id of the latest logout request, if it is fulfilled
    restoration: Restoration | None  # what the volume began with


class Volume:
    """The volume of one session; call ``open()`` before anything else.

    All methods block on the disk, some of them for seconds: call them in a thread.
    """

    def __init__(
        self,
        directory: Path,
        client_id: str,
        session_uid: str | None,
        minimum_free_bytes: int = 0,
        owner: str | None = None,
        previous_owners: Sequence[str] = (),
        make_room: Callable[[int], object] | None = None,
    ) -> None:
        self.client_id = client_id
        self.profile = directory / f"session-{client_id}"
        self._directory = directory
        self._snapshots = directory / "snapshots"
        self._owner = Owner(client_id=client_id, session_uid=session_uid, owner=owner)
        self._previous_owners = previous_owners
        self._minimum_free = minimum_free_bytes
        self._make_room = make_room  # deletes about so many bytes of events
        self._lock: IO[str] | None = None
        self._writing = threading.RLock()  # the methods are called from several threads

    def open(self) -> LastShutdown | None:
        """Lock the volume and return how its last use ended; retry after a ``StorageError``."""
        with _os_errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._finish_restoration()
            owner = self._read("owner.json", Owner)
            if owner is not None and self._owner_conflict(owner) is None:
                self._check_unused()
                self._check_access()
                self.make_room()
            self.check_space()
            self._check_owner()
            self._check_unused()
            last_shutdown = self._last_shutdown()
            self._finish_repair()
            for leftover in (
                *self._snapshots.glob("instead-of-*"),
                self._snapshots / snapshots.PARTIAL,
                self._directory / RESTORING,
            ):
                shutil.rmtree(leftover, ignore_errors=True)
            self.profile.mkdir(exist_ok=True)
            # We hold the lock, so the Chromium that created them has gone, on whatever host it ran.
            for name in SINGLETONS:
                (self.profile / name).unlink(missing_ok=True)
            self._write("run.json", Run(started_at=datetime.now(UTC)))
        return last_shutdown

    def read(self) -> Content:
        """Return what the volume holds; raise ``StorageError``."""
        return Content(
            self.login,
            self.has_login,
            self.snapshot,
            self.repair,
            self.can_fall_back,
            self.fulfilled_logout,
            self.restoration,
        )

    def record_graceful_close(self) -> None:
        """Record that the browser has closed the profile gracefully, and sync it to disk."""
        with contextlib.suppress(OSError, StorageError):
            run = self._read("run.json", Run)
            if run is not None:
                self._write("run.json", run.model_copy(update={"stopped_at": datetime.now(UTC)}))
            self._sync_login()
            access.share_with_group(self._directory)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- space ------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Free space; raises ``StorageError``."""
        with _os_errors():
            return shutil.disk_usage(self._directory).free

    def room(self) -> int:
        """Free space beyond what a start requires; raises ``StorageError``."""
        return self.free_bytes() - self._minimum_free

    def make_room(self) -> None:
        """Delete what a full volume does not need; no browser may run on the profile.

        First caches, once space is low. Then, before a start would be refused, the oldest events,
        and the profiles of ended logins, oldest first. Raises ``StorageError``.
        """
        quarantined = self._quarantined()
        if self._has_space(2 * self._minimum_free):
            return
        log.warning("space on the volume is low; deleting caches")
        for profile in (self.profile, *(path for _, _, path in quarantined)):
            _delete_caches(profile)
        if (lacking := self._minimum_free - self.free_bytes()) > 0 and self._make_room is not None:
            self._make_room(lacking)
        for _, why, path in sorted(quarantined):
            if self._has_space(self._minimum_free):
                return
            if why == "logged-out":
                shutil.rmtree(path, ignore_errors=True)
                log.warning(
                    "profile of an ended login deleted for lack of space",
                    extra={"profile": path.name},
                )

    def _has_space(self, needed: int) -> bool:
        with _os_errors():
            stat = os.statvfs(self._directory)
        return stat.f_bavail * stat.f_frsize >= needed and bool(stat.f_favail or not stat.f_files)

    def check_space(self, *, running: bool = False) -> Notice | None:
        """Return a warning if space is low; raise ``StorageError`` if no browser may run.

        WhatsApp Web ends its login when it can't store data. A running browser may use half of the
        space that a start requires.
        """
        with _os_errors():
            stat = os.statvfs(self._directory)
        if stat.f_flag & os.ST_RDONLY:
            raise StorageError(Reason.VOLUME_READ_ONLY, "the volume is mounted read-only")
        if stat.f_files and not stat.f_favail:
            raise StorageError(Reason.VOLUME_FULL, "the volume has no inodes left")
        free, needed = (
            stat.f_bavail * stat.f_frsize,
            self._minimum_free // 2 if running else self._minimum_free,
        )
        if free < needed:
            raise StorageError(
                Reason.VOLUME_FULL,
                f"the volume has {free // MIB} MiB free; {needed // MIB} MiB are needed",
            )
        if free < 2 * self._minimum_free:
            limit = self._minimum_free // 2 // MIB
            message = (
                f"The volume has {free // MIB} MiB free. "
                f"Below {limit} MiB the browser is closed to protect the login."
            )
            return Notice(reason=Reason.VOLUME_LOW, message=message)
        return None

    # --- the login --------------------------------------------------------------------------------

    @property
    def login(self) -> Login | None:
        """The login last recorded as valid on this volume; raises ``StorageError``."""
        return self._read("login.json", Login)

    @property
    def has_login(self) -> bool | None:
        """Whether the volume holds a login; None if it has a record of one that is not readable.

        Raises ``StorageError``.
        """
        if self.login is not None:
            return True
        with _os_errors():
            return None if (self._directory / "login.json").exists() else False

    def peek_login(self) -> Login | None:
        """Return the login of a volume that cannot be opened, if it is this session's.

        None when there is none, or it cannot be read: only ``open`` proves that there is no login.
        """
        with contextlib.suppress(StorageError):
            owner = self._read("owner.json", Owner)
            if owner is not None and self._owner_conflict(owner) is None:
                return self.login
        return None

    def record_login(self, account: str, phone_last_seen: datetime | None = None) -> Login:
        """Sync the login to disk and record it as valid; raise ``StorageError``."""
        login = Login(account=account, since=datetime.now(UTC), phone_last_seen=phone_last_seen)
        with _os_errors(), self._writing:
            self._sync_login()
            if self.login is None:
                self._finish_logout()
            self._write("login.json", login)
            self.clear_repair()
        return login

    def record_phone_seen(self, at: datetime) -> None:
        """Record the phone's last activity with the login; raise ``StorageError``."""
        with _os_errors(), self._writing:
            if login := self.login:
                self._write("login.json", login.model_copy(update={"phone_last_seen": at}))

    @property
    def fulfilled_logout(self) -> str | None:
        """The id of the latest logout request if it is fulfilled; raises ``StorageError``.

        The login that a request was to end has ended once it is gone, whoever has ended it.
        """
        logout = self._read("logout.json", LogoutRequest)
        if logout is None:
            return None
        return logout.request if logout.done or self.has_login is False else None

    def record_logout(self, request: str, *, done: bool) -> None:
        """Record that a logout is requested, or fulfilled; raise ``StorageError``."""
        with _os_errors(), self._writing:
            self._write("logout.json", LogoutRequest(request=request, done=done))

    def quarantine(self) -> Path:
        """Quarantine the profile after a proven logout; return its new path.

        The snapshots go with it: restoring one would bring back the login that has ended. The
        record of the login goes first, which a full volume does not prevent.
        """
        target = self._quarantine_path("logged-out")
        with _os_errors(), self._writing:
            self._remove("login.json")
            self._remove("repair.json")
            self.profile.rename(target)
            _delete_caches(target)
            if self._snapshots.exists():
                self._snapshots.rename(target / "snapshots")
            self.profile.mkdir()
            self._finish_logout()
        return target

    def _finish_logout(self) -> None:
        """Record that the login which a request was to end has ended."""
        logout = self._read("logout.json", LogoutRequest)
        if logout is not None and not logout.done:
            self._write("logout.json", logout.model_copy(update={"done": True}))

    # --- a login that another browser has ---------------------------------------------------------

    def is_displaced(self, restart: str | None) -> bool:
        """Return whether another browser has the login; raise ``StorageError``.

        ``restart`` is the request for a restart that this process fulfils, if there was one.
        """
        record, login = self._read("displaced.json", Displacement), self.login
        if record is None or restart not in (None, record.restart):
            return False
        now = (None if login is None else login.id, self._owner.session_uid)
        return (record.login, record.session_uid) == now

    def record_displacement(self, restart: str | None) -> None:
        """Record that another browser has the login; raise ``StorageError``."""
        with _os_errors(), self._writing:
            login = self.login
            record = Displacement(
                at=datetime.now(UTC),
                login=None if login is None else login.id,
                session_uid=self._owner.session_uid,
                restart=restart,
            )
            self._write("displaced.json", record)

    def clear_displacement(self) -> None:
        """Forget that another browser has the login; raise ``StorageError``."""
        with _os_errors(), self._writing:
            self._remove("displaced.json")

    # --- snapshots --------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Manifest | None:
        """The latest readable snapshot of the volume's login."""
        usable = self.usable_snapshot()
        return usable[1] if usable else None

    def take_snapshot(self) -> Manifest:
        """Take a snapshot of the login, whether or not the browser is running.

        Raises ``SnapshotError`` and ``StorageError``.
        """
        login = self.login
        if login is None:
            raise SnapshotError("the volume holds no login")
        room = self.room()
        with _os_errors():
            now = datetime.now(UTC)
            return snapshots.take(self.profile, self._snapshots, login.since, now, room)

    def usable_snapshot(self) -> tuple[Path, Manifest] | None:
        """Return the newest snapshot of this login; an earlier login has been ended by WhatsApp."""
        login = self.login
        with _os_errors():
            paths = snapshots.list_snapshots(self._snapshots)
        for path in paths:
            with contextlib.suppress(SnapshotError):
                manifest = snapshots.read_manifest(path)
                if login is not None and manifest.login == login.since:
                    return path, manifest
        return None

    # --- damage -----------------------------------------------------------------------------------

    @property
    def repair(self) -> Repair | None:
        return self._read("repair.json", Repair)

    @property
    def can_fall_back(self) -> bool:
        """Whether ``replace_profile`` has a source left; raises ``StorageError``."""
        return next_source(self.repair, set(Part), self.snapshot is not None) is not None

    def find_damage(self) -> dict[Part, str]:
        """Describe the damage to the profile's login; no browser may run on it.

        Raises ``StorageError``.
        """
        if self.login is None:
            return {}
        with _os_errors():
            return snapshots.find_damage(self.profile, self.snapshot)

    def has_intact_login(self) -> bool:
        """Whether there is a login, and its files are undamaged; no browser may run on them.

        Raises ``StorageError``.
        """
        return self.login is not None and not self.find_damage()

    def prepare_profile(self) -> None:
        """Prepare the profile for a browser; none may run on it. Raises ``StorageError``."""
        with _os_errors():
            snapshots.truncate_partial_records(self.profile)

    def replace_profile(self, because: str, damaged: Collection[Part]) -> Repair | None:
        """Quarantine the profile and put another in its place; return None if no source is left.

        ``damaged`` parts of the login come from the last snapshot, the others from the profile
        itself: the ratchets of WhatsApp's encryption have moved on since the snapshot, so an intact
        IndexedDB is never replaced. Raises ``StorageError``. If the process is killed meanwhile,
        the next ``open()`` completes the replacement.
        """
        usable, earlier = self.usable_snapshot(), self.repair
        while (source := next_source(earlier, damaged, usable is not None)) is not None:
            repair = Repair(
                source=source,
                because=because[:512],
                quarantined_as=self._quarantine_path("damaged").name,
            )
            sources = {}
            if source is not Source.NOTHING:
                sources = {
                    part: usable[0] if part in damaged and usable else self.profile for part in Part
                }
            if source is Source.SNAPSHOT and usable:
                repair.snapshot = usable[1].taken_at
            try:
                self._stage(repair, sources)
            except SnapshotError as error:
                earlier, because = repair, f"{because}; {error}"
                continue
            with _os_errors():
                self._write("repair.json", repair)
                self._finish_repair()
            return repair
        return None

    def clear_repair(self) -> None:
        """Forget the last repair, because the login is good again; raise ``StorageError``."""
        with _os_errors():
            self._remove("repair.json")

    def purge_quarantine(self, retention: timedelta) -> list[str]:
        """Remove profiles quarantined longer than ``retention`` (0: never); return their names.

        A damaged profile stays until a login is known to be good, or its own to have ended.
        """
        if not retention:
            return []
        removed = []
        for quarantined_at, why, path in self._quarantined():
            if why == "damaged" and self.repair is not None:
                continue
            if datetime.now(UTC) - quarantined_at > retention:
                with contextlib.suppress(OSError):
                    shutil.rmtree(path)
                    removed.append(path.name)
        return removed

    def _quarantined(self) -> list[tuple[datetime, str, Path]]:
        """Return the quarantined profiles: when, why and where."""
        profiles = []
        with _os_errors():
            for path in self._directory.glob(f"{self.profile.name}.*"):
                match = QUARANTINED.fullmatch(path.name.removeprefix(self.profile.name))
                if match is not None:
                    at = datetime.strptime(match[2], TIME_FORMAT).replace(tzinfo=UTC)
                    profiles.append((at, match[1], path))
        return profiles

    # --- restoring a backup -----------------------------------------------------------------------

    @property
    def restoration(self) -> Restoration | None:
        """What the volume began with; with the login's ID while it has that login.

        Raises ``StorageError``.
        """
        record = self._read("restoration.json", RestorationRecord)
        if record is None:
            return None
        login = self.login
        ended = self.has_login is False if login is None else login.since != record.login
        return Restoration(
            backup=record.backup,
            restored=record.restored,
            login_id=None if ended else record.login_id,
            at=record.at,
        )

    def begin_restoration(self, backup: str, size: int) -> Path | None:
        """Lock the volume and return a directory for a login, with space for ``size`` bytes.

        Return None for a volume that is not empty, which is recorded, or that has been restored
        before. Raises ``StorageError``.
        """
        with _os_errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._finish_restoration()
            if not self._is_empty():
                self._record_skipped(backup)
                return None
            staging = self._directory / RESTORING
            if staging.exists():
                shutil.rmtree(staging)
            if (free := self.room()) < size:
                raise StorageError(
                    Reason.VOLUME_FULL,
                    f"the volume has {(free + self._minimum_free) // MIB} MiB free; "
                    f"{(size + self._minimum_free) // MIB} MiB are needed",
                )
            staging.mkdir()
        return staging

    def commit_restoration(self, record: RestorationRecord) -> None:
        """Put what the directory of ``begin_restoration`` has in place: all of it, or nothing.

        Raises ``StorageError``. If the process is killed meanwhile, the next ``open()`` completes
        it.
        """
        staging = self._directory / RESTORING
        with _os_errors():
            (staging / "owner.json").write_text(self._owner.model_dump_json())
            (staging / "restoration.json").write_text(record.model_dump_json())
            snapshots.sync_tree(staging)
            staging.rename(self._directory / RESTORED)
            snapshots.sync(self._directory)
            self._finish_restoration()

    def begin_adoption(self, backup: str, login_id: str) -> bool:
        """Lock the copy of another session's volume, and check that it is what the backup says.

        Return False if it was adopted before. Raises ``StorageError``.
        """
        with _os_errors():
            self._take_lock()
            record = self._read("restoration.json", RestorationRecord)
            if record is not None and record.backup == backup:
                return False
            owner, login = self._read("owner.json", Owner), self.login
        if owner is None or owner.client_id != self.client_id:
            of = "no session" if owner is None else f"clientId {owner.client_id}"
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION, f"the VolumeSnapshot has the volume of {of}"
            )
        if login is None or login.id != login_id:
            has = "no login" if login is None else "another login than the backup says"
            raise StorageError(Reason.LOGIN_MISSING, f"the VolumeSnapshot has {has}")
        return True

    def commit_adoption(self, backup: str) -> None:
        """Record that the volume is this session's since now. Raises ``StorageError``."""
        login = self.login
        assert login is not None  # of ``begin_adoption``
        now = datetime.now(UTC)
        record = RestorationRecord(
            backup=backup, restored=True, login_id=login.id, at=now, login=login.since
        )
        with _os_errors(), self._writing:
            self._write("owner.json", self._owner)
            self._write("restoration.json", record)

    def _is_empty(self) -> bool:
        """Whether there is nothing but the lock, and what file systems have by themselves."""
        return all(
            path.name in ("lock", "lost+found", RESTORING) or path.name.startswith(".")
            for path in self._directory.iterdir()
        )

    def _record_skipped(self, backup: str) -> None:
        """Record that the volume was not empty, unless it is another session's."""
        record = self._read("restoration.json", RestorationRecord)
        if record is not None and (record.restored or record.backup == backup):
            return
        with contextlib.suppress(StorageError):  # which the session reports
            self._check_owner()
            now = datetime.now(UTC)
            self._write(
                "restoration.json", RestorationRecord(backup=backup, restored=False, at=now)
            )

    def _finish_restoration(self) -> None:
        """Put a complete restoration in place, on a volume that was empty."""
        restored = self._directory / RESTORED
        if not restored.exists():
            return
        for path in restored.iterdir():
            path.rename(self._directory / path.name)
        snapshots.sync(self._directory)
        restored.rmdir()

    # --- steps of open and replace_profile --------------------------------------------------------

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._directory / "lock").open("a")  # never deleted: the lock is on its inode
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StorageError(
                Reason.VOLUME_IN_USE, "another process is using the volume"
            ) from None
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def _check_access(self) -> None:
        """Share the files with the volume's group; raise ``StorageError`` if others are private."""
        if problem := access.share_with_group(self._directory):
            message = f"{problem}; run the pod as that user, or set fsGroupChangePolicy to Always"
            raise StorageError(Reason.VOLUME_NOT_ACCESSIBLE, message)

    def _check_unused(self) -> None:
        """Raise ``StorageError`` if an orphaned Chromium still answers on its socket."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as chromium:
            chromium.connect(str((self.profile / "SingletonSocket").readlink()))
            raise StorageError(
                Reason.VOLUME_IN_USE,
                "a Chromium started by another process is still using the profile",
            )

    def _check_owner(self) -> None:
        try:
            owner = Owner.model_validate_json((self._directory / "owner.json").read_bytes())
        except FileNotFoundError:
            others = [
                path.name for path in self._directory.glob("session-*") if path != self.profile
            ]
            if others:
                raise StorageError(
                    Reason.VOLUME_OF_ANOTHER_SESSION,
                    f"the volume holds {others[0]} but has no owner.json; it was left unchanged",
                ) from None
            self._write("owner.json", self._owner)
            return
        except ValidationError:
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION,
                "the volume's owner.json is not readable; the volume was left unchanged",
            ) from None
        if conflict := self._owner_conflict(owner):
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION, f"{conflict}; the volume was left unchanged"
            )
        known = owner.owner if self._owner.owner is None else self._owner.owner
        updated = self._owner.model_copy(update={"owner": known})
        if owner != updated:
            self._write("owner.json", updated)

    def _owner_conflict(self, present: Owner) -> str | None:
        """Return why the volume is another session's; None when it is this one's.

        A session that is created again has another UID: then it must have the same owner. The claim
        notes owners that its session had before; the volume learns of a new one from the next pod.
        """
        own = self._owner
        if present.client_id != own.client_id:
            return f"the volume belongs to clientId {present.client_id}"
        known = (own.owner, *self._previous_owners)
        handed_over = present.session_uid != own.session_uid and present.owner not in known
        if handed_over and None not in (present.owner, own.owner):
            return "the volume belongs to a session of another owner"
        return None

    def _last_shutdown(self) -> LastShutdown | None:
        run = self._read("run.json", Run)
        if run is None:
            return None
        return LastShutdown(
            at=run.stopped_at or run.started_at, graceful=run.stopped_at is not None
        )

    def _stage(self, repair: Repair, sources: dict[Part, Path]) -> None:
        """Build the next profile beside the current one.

        Raises ``SnapshotError`` and ``StorageError``.
        """
        target = self._staging_path(repair)
        try:
            with _os_errors():
                target.mkdir(parents=True)
                if sources:
                    snapshots.restore(sources, target)
        except (SnapshotError, StorageError):
            shutil.rmtree(target, ignore_errors=True)
            raise

    def _finish_repair(self) -> None:
        """Swap the profiles, if a staged one is waiting for that."""
        repair = self.repair
        if repair is None or not self._staging_path(repair).exists():
            return
        quarantine = self._directory / repair.quarantined_as
        if self.profile.exists() and not quarantine.exists():
            self.profile.rename(quarantine)
            _delete_caches(quarantine)
        self._staging_path(repair).rename(self.profile)
        snapshots.sync(self._directory)

    def _sync_login(self) -> None:
        for part in Part:
            snapshots.sync_tree(self.profile / part)

    def _staging_path(self, repair: Repair) -> Path:
        return self._snapshots / f"instead-of-{repair.quarantined_as}"

    def _quarantine_path(self, why: str) -> Path:
        """Return an unused path for the profile to be renamed to."""
        name = f"{self.profile.name}.{why}-{datetime.now(UTC).strftime(TIME_FORMAT)}"
        names = [name, *(f"{name}-{number}" for number in range(2, 100))]
        return next(path for name in names if not (path := self._directory / name).exists())

    # --- files ------------------------------------------------------------------------------------

    def _read(self, name: str, model: type[M]) -> M | None:
        """Return a file's content, or None if it is missing or invalid; raise ``StorageError``."""
        with _os_errors(), contextlib.suppress(FileNotFoundError, ValidationError):
            return model.model_validate_json((self._directory / name).read_bytes())
        return None

    def _write(self, name: str, content: BaseModel) -> None:
        """Replace the file atomically and sync it to disk."""
        path = self._directory / name
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(content.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        snapshots.sync(self._directory)

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        snapshots.sync(self._directory)


def _delete_caches(profile: Path) -> None:
    for cache in CACHES:
        shutil.rmtree(profile / cache, ignore_errors=True)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turn ``OSError`` into ``StorageError``."""
    try:
        yield
    except OSError as error:
        message = f"the volume can't be used: {error.strerror}"
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                reason = Reason.VOLUME_FULL
            case errno.EACCES | errno.EPERM:
                reason = Reason.VOLUME_NOT_ACCESSIBLE
                where = error.filename or "a file on the volume"
                message = f"user {os.geteuid()} has no access to {where}"
            case _:
                reason = Reason.VOLUME_READ_ONLY
        raise StorageError(reason, message) from error
