"""The volume: who owns it, whether it can be used, and what becomes of the profile on it.

Nothing here deletes a login. A profile whose login WhatsApp has ended is moved aside; one that belongs to somebody else is
left alone and reported.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError
from wasession_api.v1alpha1 import LastShutdown, Reason

SINGLETONS = ("SingletonLock", "SingletonCookie", "SingletonSocket")


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


class Run(BaseModel):
    """Since when the profile is in use; ``stopped_at`` is set when it was closed gracefully."""

    started_at: datetime
    stopped_at: datetime | None = None


class Volume:
    """The directory that a session lives in. Open it before anything else of it is used."""

    def __init__(self, directory: Path, client_id: str, session_uid: str | None, minimum_free_bytes: int = 0) -> None:
        self.profile = directory / f"session-{client_id}"
        self._directory = directory
        self._owner = Owner(client_id=client_id, session_uid=session_uid)
        self._minimum_free = minimum_free_bytes
        self._lock: IO[str] | None = None

    def open(self) -> LastShutdown | None:
        """Takes the volume and says how it was left; raises ``StorageError``. May be called again after one."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self.check_space()
            self._check_owner()
            left = self._how_it_was_left()
            self.profile.mkdir(exist_ok=True)
            # Safe under our lock: whoever made them is gone, also when it ran on another host.
            for name in SINGLETONS:
                (self.profile / name).unlink(missing_ok=True)
            self._write("run.json", Run(started_at=datetime.now(UTC)))
        except OSError as error:
            raise StorageError(Reason.VOLUME_READ_ONLY, f"the volume cannot be written: {error.strerror}") from error
        return left

    @property
    def opened(self) -> bool:
        return self._lock is not None

    def check_space(self) -> None:
        """Raises ``StorageError`` when the volume is nearly full: WhatsApp Web ends its login when it can't store."""
        free = shutil.disk_usage(self._directory).free
        if free < self._minimum_free:
            needed = self._minimum_free // 2**20
            raise StorageError(Reason.VOLUME_FULL, f"the volume has {free // 2**20} MiB free; {needed} MiB are needed")

    @property
    def login(self) -> Login | None:
        """The login that was safe on this volume the last time anybody knew."""
        try:
            return Login.model_validate_json((self._directory / "login.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep_login(self, account: str) -> None:
        self._write("login.json", Login(account=account, since=datetime.now(UTC)))

    def set_aside(self) -> Path:
        """Moves the profile away after a proven logout and returns where to; the next start begins a new one."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        target = self.profile.with_name(f"{self.profile.name}.logged-out-{stamp}")
        number = 1
        while target.exists():
            number += 1
            target = self.profile.with_name(f"{self.profile.name}.logged-out-{stamp}-{number}")
        self.profile.rename(target)
        (self._directory / "login.json").unlink(missing_ok=True)
        self.profile.mkdir()
        return target

    def close(self) -> None:
        """Says that the profile was closed gracefully, and has the kernel write it all."""
        with contextlib.suppress(OSError, ValidationError):
            run = Run.model_validate_json((self._directory / "run.json").read_bytes())
            self._write("run.json", run.model_copy(update={"stopped_at": datetime.now(UTC)}))
        os.sync()
        if self._lock is not None:
            self._lock.close()

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._directory / "lock").open("a")  # never removed: its inode is the lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StorageError(Reason.VOLUME_IN_USE, "another process uses the volume") from None
        self._lock = lock

    def _check_owner(self) -> None:
        try:
            owner = Owner.model_validate_json((self._directory / "owner.json").read_bytes())
        except FileNotFoundError:
            others = [path.name for path in self._directory.glob("session-*") if path != self.profile]
            if others:
                raise StorageError(
                    Reason.VOLUME_OF_ANOTHER_SESSION,
                    f"the volume holds {others[0]} and does not say whose it is; it was left alone",
                ) from None
            self._write("owner.json", self._owner)
            return
        except ValidationError:
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION, "the volume's owner.json can't be read; it was left alone"
            ) from None
        if owner.client_id != self._owner.client_id:
            raise StorageError(
                Reason.VOLUME_OF_ANOTHER_SESSION, f"the volume belongs to clientId {owner.client_id}; it was left alone"
            )
        if owner != self._owner:
            self._write("owner.json", self._owner)

    def _how_it_was_left(self) -> LastShutdown | None:
        path = self._directory / "run.json"
        try:
            run = Run.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return LastShutdown(at=run.stopped_at or run.started_at, graceful=run.stopped_at is not None)

    def _write(self, name: str, content: BaseModel) -> None:
        """Atomically, and on disk before it returns."""
        path = self._directory / name
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(content.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
