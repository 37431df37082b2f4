"""The volume: who owns it, whether it can be used, and what becomes of the profile on it.

Nothing here deletes a login. A profile whose login WhatsApp has ended, or that is damaged, is moved
aside; one that belongs to somebody else is left alone and reported. What was moved aside is removed
only after a long time, and never while it may hold the only copy of a login that is valid.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import LastShutdown, Reason

from wasession_pod.volume import snapshots as login_snapshot
from wasession_pod.volume.snapshots import Manifest, Part, SnapshotError

SINGLETONS = ("SingletonLock", "SingletonCookie", "SingletonSocket")
STAMP = "%Y%m%dT%H%M%SZ"
ASIDE = re.compile(r"\.(logged-out|damaged)-(\d{8}T\d{6}Z)(-\d+)?")
MIB = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT)
M = TypeVar("M", bound=BaseModel)


class StorageError(Exception):
    """The volume can't be used now; ``reason`` is one CamelCase word, the message a sentence."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Owner(BaseModel):
    """Whose volume it is. The client id never changes; the session object may be another one after an adoption."""

    client_id: str
    session_uid: str | None


class Login(BaseModel):
    """Written when a login is safe on disk, taken away when WhatsApp has ended it."""

    account: str
    since: datetime
    phone_last_seen: datetime | None = None  # the last sign of life of the account's phone


class Run(BaseModel):
    """Since when the profile is in use; ``stopped_at`` is set when it was closed gracefully."""

    started_at: datetime
    stopped_at: datetime | None = None


class Source(StrEnum):
    """What a profile that replaces a damaged one is made of."""

    PROFILE = "Profile"  # the damaged one's login, which is whole
    SNAPSHOT = "Snapshot"  # what is damaged comes from the last snapshot
    NOTHING = "Nothing"  # a new profile, for a phone to be linked to


class Repair(BaseModel):
    """What was done about a damaged profile. It stays until a login is good again, so that nothing is tried twice."""

    source: Source
    because: str
    snapshot: datetime | None = None
    aside: str

    @property
    def words(self) -> str:
        done = {
            Source.PROFILE: "Its login was moved to a new profile.",
            Source.SNAPSHOT: f"The login comes from the snapshot of {self.snapshot:%Y-%m-%d %H:%M} UTC."
            if self.snapshot
            else "",
            Source.NOTHING: "No usable snapshot is left, so a phone has to be linked.",
        }
        return f"The profile was damaged ({self.because}) and is kept as {self.aside}. {done[self.source]}"


def next_source(
    earlier: Repair | None, damaged: Collection[Part], has_snapshot: bool
) -> Source | None:
    """What to make the next profile of; None when there is nothing left to try, or no use in it."""
    if earlier is not None and earlier.source is Source.NOTHING:
        return None
    if not damaged:
        return Source.PROFILE if earlier is None else None
    if has_snapshot and (earlier is None or earlier.source is Source.PROFILE):
        return Source.SNAPSHOT
    return Source.NOTHING


class Volume:
    """The directory that a session lives in. Open it before anything else of it is used."""

    def __init__(
        self, directory: Path, client_id: str, session_uid: str | None, minimum_free_bytes: int = 0
    ) -> None:
        self.profile = directory / f"session-{client_id}"
        self._directory = directory
        self._snapshots = directory / "snapshots"
        self._owner = Owner(client_id=client_id, session_uid=session_uid)
        self._minimum_free = minimum_free_bytes
        self._lock: IO[str] | None = None

    def open(self) -> LastShutdown | None:
        """Takes the volume and says how it was left; raises ``StorageError``. May be called again after one."""
        with _os_errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self.check_space()
            self._check_owner()
            self._check_unused()
            left = self._how_it_was_left()
            self._finish_repair()
            for leftover in (
                *self._snapshots.glob("instead-of-*"),
                self._snapshots / login_snapshot.PARTIAL,
            ):
                shutil.rmtree(leftover, ignore_errors=True)
            self.profile.mkdir(exist_ok=True)
            # Safe under our lock: whoever made them is gone, also when it ran on another host.
            for name in SINGLETONS:
                (self.profile / name).unlink(missing_ok=True)
            self._write("run.json", Run(started_at=datetime.now(UTC)))
        return left

    @property
    def opened(self) -> bool:
        return self._lock is not None

    def closed_gracefully(self) -> None:
        """The browser has closed the profile by itself; the kernel is to write it all."""
        with contextlib.suppress(OSError, StorageError):
            run = self._read("run.json", Run)
            if run is not None:
                self._write("run.json", run.model_copy(update={"stopped_at": datetime.now(UTC)}))
            self._sync_login()

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- space ------------------------------------------------------------------------------------

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self._directory).free

    def check_space(self, *, running: bool = False) -> Notice | None:
        """Raises ``StorageError`` when no browser may run on the volume: WhatsApp Web ends its login when it can't store.

        A browser that runs already may use up half of what is needed for a start. Returns a warning
        before that.
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
            words = f"The volume has {free // MIB} MiB free. Below {limit} MiB the browser is closed, to keep the login."
            return Notice(reason=Reason.VOLUME_LOW, message=words)
        return None

    # --- the login --------------------------------------------------------------------------------

    @property
    def login(self) -> Login | None:
        """The login that was safe on this volume the last time anybody knew; raises ``StorageError``."""
        return self._read("login.json", Login)

    def keep_login(self, account: str, phone_last_seen: datetime | None = None) -> None:
        """The login is good: from now on it counts as valid, also after a loss of power. Raises ``StorageError``."""
        with _os_errors():
            self._sync_login()
            self._write(
                "login.json",
                Login(account=account, since=datetime.now(UTC), phone_last_seen=phone_last_seen),
            )
            self.repaired()

    def phone_seen(self, at: datetime) -> None:
        """The account's phone was alive then. Raises ``StorageError``."""
        with _os_errors():
            if login := self.login:
                self._write("login.json", login.model_copy(update={"phone_last_seen": at}))

    def set_aside(self) -> Path:
        """Moves the profile away after a proven logout and returns where to; the next start begins a new one.

        The snapshots go with it: one of them would bring back the login that has ended.
        """
        target = self._aside("logged-out")
        with _os_errors():
            self._remove("login.json")
            self._remove("repair.json")
            self.profile.rename(target)
            if self._snapshots.exists():
                self._snapshots.rename(target / "snapshots")
            self.profile.mkdir()
        return target

    # --- snapshots --------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Manifest | None:
        """The last good snapshot of the login that is on the volume."""
        found = self._usable_snapshot()
        return found[1] if found else None

    def take_snapshot(self) -> Manifest:
        """A snapshot of a login that is good, with the browser open or closed; raises ``SnapshotError``, ``StorageError``."""
        login = self.login
        if login is None:
            raise SnapshotError("there is no login")
        room = self.free_bytes - self._minimum_free
        return login_snapshot.take(
            self.profile, self._snapshots, login.since, datetime.now(UTC), room
        )

    # --- damage -----------------------------------------------------------------------------------

    @property
    def repair(self) -> Repair | None:
        return self._read("repair.json", Repair)

    @property
    def can_fall_back(self) -> bool:
        """Whether something is left to try when the profile has lost its login; raises ``StorageError``."""
        return next_source(self.repair, set(Part), self.snapshot is not None) is not None

    def damage(self) -> dict[Part, str]:
        """What is damaged of the login that should be in the profile. Only while no browser runs; raises ``StorageError``."""
        if self.login is None:
            return {}
        with _os_errors():
            return login_snapshot.damage(self.profile, self.snapshot)

    def prepare_profile(self) -> None:
        """Makes the profile ready for a browser. Only while none runs; raises ``StorageError``."""
        with _os_errors():
            login_snapshot.cut_half_records(self.profile)

    def replace_profile(self, because: str, damaged: Collection[Part]) -> Repair | None:
        """Moves the profile aside and puts another in its place; None when there is nothing left to try, and nothing was done.

        ``damaged`` parts of the login come from the last snapshot, the others from the profile
        itself. Of an older IndexedDB the ratchets of WhatsApp's encryption have moved on since, so
        a whole one is always kept. Raises ``StorageError``; killed at any point, the next ``open``
        goes on with it.
        """
        usable, earlier = self._usable_snapshot(), self.repair
        while (source := next_source(earlier, damaged, usable is not None)) is not None:
            repair = Repair(source=source, because=because[:512], aside=self._aside("damaged").name)
            sources = {}
            if source is not Source.NOTHING:
                sources = {
                    part: usable[0] if part in damaged and usable else self.profile for part in Part
                }
            if source is Source.SNAPSHOT and usable:
                repair.snapshot = usable[1].taken_at
            try:
                self._prepare(repair, sources)
            except SnapshotError as error:
                earlier, because = repair, f"{because}; {error}"
                continue
            with _os_errors():
                self._write("repair.json", repair)
                self._finish_repair()
            return repair
        return None

    def repaired(self) -> None:
        """The login is good again."""
        with _os_errors():
            self._remove("repair.json")

    def remove_aside(self, keep: timedelta) -> list[str]:
        """Removes what was moved aside longer ago than ``keep``, and returns its names; 0 keeps it for ever.

        A damaged profile stays as long as its login isn't known to be good or ended.
        """
        if not keep:
            return []
        removed = []
        for path in self._directory.glob(f"{self.profile.name}.*"):
            match = ASIDE.fullmatch(path.name.removeprefix(self.profile.name))
            if match is None or (match[1] == "damaged" and self.repair is not None):
                continue
            if datetime.now(UTC) - datetime.strptime(match[2], STAMP).replace(tzinfo=UTC) > keep:
                with contextlib.suppress(OSError):
                    shutil.rmtree(path)
                    removed.append(path.name)
        return removed

    # --- the parts of open and replace_profile ----------------------------------------------------

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._directory / "lock").open("a")  # never removed: its inode is the lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StorageError(Reason.VOLUME_IN_USE, "another process uses the volume") from None
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def _check_unused(self) -> None:
        """A Chromium may outlive the process that started it, and so our lock: then its socket answers."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as chromium:
            chromium.connect(str((self.profile / "SingletonSocket").readlink()))
            raise StorageError(
                Reason.VOLUME_IN_USE, "a Chromium that another process has started uses the profile"
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
                    f"the volume holds {others[0]} and does not say whose it is; it was left alone",
                ) from None
            self._write("owner.json", self._owner)
            return
        except ValidationError:
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION,
                "the volume's owner.json can't be read; it was left alone",
            ) from None
        if owner.client_id != self._owner.client_id:
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION,
                f"the volume belongs to clientId {owner.client_id}; it was left alone",
            )
        if owner != self._owner:
            self._write("owner.json", self._owner)

    def _how_it_was_left(self) -> LastShutdown | None:
        run = self._read("run.json", Run)
        if run is None:
            return None
        return LastShutdown(
            at=run.stopped_at or run.started_at, graceful=run.stopped_at is not None
        )

    def _usable_snapshot(self) -> tuple[Path, Manifest] | None:
        """The newest one of this login. One of an earlier login would bring back what WhatsApp has ended."""
        login = self.login
        for path in login_snapshot.taken(self._snapshots):
            with contextlib.suppress(SnapshotError):
                manifest = login_snapshot.read(path)
                if login is not None and manifest.login == login.since:
                    return path, manifest
        return None

    def _prepare(self, repair: Repair, sources: dict[Part, Path]) -> None:
        """Makes the next profile, beside the present one; raises ``SnapshotError`` and ``StorageError``."""
        target = self._prepared(repair)
        try:
            with _os_errors():
                target.mkdir(parents=True)
                if sources:
                    login_snapshot.restore(sources, target)
        except (SnapshotError, StorageError):
            shutil.rmtree(target, ignore_errors=True)
            raise

    def _finish_repair(self) -> None:
        """Swaps the profiles when that is still to be done."""
        repair = self.repair
        if repair is None or not self._prepared(repair).exists():
            return
        aside = self._directory / repair.aside
        if self.profile.exists() and not aside.exists():
            self.profile.rename(aside)
        self._prepared(repair).rename(self.profile)
        login_snapshot.sync(self._directory)

    def _sync_login(self) -> None:
        for part in Part:
            login_snapshot.sync_tree(self.profile / part)

    def _prepared(self, repair: Repair) -> Path:
        return self._snapshots / f"instead-of-{repair.aside}"

    def _aside(self, why: str) -> Path:
        """A name that nothing has yet, for the profile to be moved to."""
        stamp = f"{self.profile.name}.{why}-{datetime.now(UTC).strftime(STAMP)}"
        names = [stamp, *(f"{stamp}-{number}" for number in range(2, 100))]
        return next(path for name in names if not (path := self._directory / name).exists())

    # --- files ------------------------------------------------------------------------------------

    def _read(self, name: str, model: type[M]) -> M | None:
        """None when there is no such file, or nothing that can be understood; raises ``StorageError``."""
        with _os_errors(), contextlib.suppress(FileNotFoundError, ValidationError):
            return model.model_validate_json((self._directory / name).read_bytes())
        return None

    def _write(self, name: str, content: BaseModel) -> None:
        """Atomically, and on disk before it returns."""
        path = self._directory / name
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(content.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        login_snapshot.sync(self._directory)

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        login_snapshot.sync(self._directory)


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Turns what the kernel says into ``StorageError``."""
    try:
        yield
    except OSError as error:
        words = f"the volume can't be used: {error.strerror}"
        raise StorageError(
            Reason.VOLUME_FULL if error.errno in FULL else Reason.VOLUME_READ_ONLY, words
        ) from error
