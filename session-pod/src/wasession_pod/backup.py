"""Backups: archives of the login that the operator asks for, made and uploaded one at a time."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from wasession_api.session_pod.backup import BackupOrder, BackupReport, BackupState

from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.volume.snapshots import SnapshotError
from wasession_pod.volume.volume import StorageError, Volume

if TYPE_CHECKING:
    from wasession_pod.volume.archive import Made

log = logging.getLogger(__name__)


class NoLogin(Exception):
    """There is no valid login to copy."""

    def __init__(self) -> None:
        super().__init__("the session has no valid login that could be copied")


class BackupRunning(Exception):
    """Another backup is under way; the message has its id."""


class Backups:
    """Makes archives of the volume's login and uploads them; ``on_change`` hears of ``report``.

    The files of an archive are read in ``take``, during which the profile must not move.
    """

    def __init__(self, volume: Volume, database: Database, on_change: Callable[[], None]) -> None:
        self._volume, self._database, self._on_change = volume, database, on_change
        self.report: BackupReport | None = None  # on the latest backup
        self._order: BackupOrder | None = None  # whose archive is still to be made
        self._stop = threading.Event()
        self._uploading: asyncio.Task[None] | None = None

    def request(self, order: BackupOrder) -> None:
        """Begin a backup unless it is under way or uploaded. Raises ``BackupRunning``."""
        if (report := self.report) is not None:
            if report.state is BackupState.RUNNING and report.id != order.id:
                raise BackupRunning(f"backup {report.id} is under way")
            if report.state is not BackupState.FAILED and report.id == order.id:
                return
        self._order = order
        self._publish(BackupReport(id=order.id, state=BackupState.RUNNING))

    @property
    def due(self) -> bool:
        """Whether ``take`` has something to do."""
        return self._order is not None

    async def take(self) -> None:
        """Make the archive of the backup that is due, and begin to upload it."""
        order, self._order = self._order, None
        assert order is not None
        began = time.monotonic()
        # It has no name, so that a killed process leaves nothing behind.
        file = tempfile.TemporaryFile(prefix="wasession-backup-")  # noqa: SIM115 - closed by _upload
        try:
            made = await asyncio.to_thread(self._make, order, file)
        except BaseException as error:
            file.close()
            if not isinstance(error, Exception):
                raise
            self._fail(order, error)
            return
        self._uploading = asyncio.create_task(self._upload(order, file, made, began))

    def _make(self, order: BackupOrder, file: IO[bytes]) -> Made:
        from wasession_pod.volume import archive  # here, as most pods make none

        return archive.make(self._volume, self._database, order.recipients, file, self._stop)

    async def _upload(self, order: BackupOrder, file: IO[bytes], made: Made, began: float) -> None:
        from wasession_pod import transfer

        with file:
            try:
                await transfer.upload(order.url.get_secret_value(), file, made.size)
            except Exception as error:
                self._fail(order, error)
                return
        seconds = round(time.monotonic() - began, 1)
        log.info(
            "backup uploaded", extra={"backup": order.id, "bytes": made.size, "seconds": seconds}
        )
        self._publish(
            BackupReport(
                id=order.id,
                state=BackupState.UPLOADED,
                taken_at=made.taken_at,
                size=made.size,
                sha256=made.sha256,
            )
        )

    def _fail(self, order: BackupOrder, error: Exception) -> None:
        message = _describe(error)
        log.warning(
            "backup failed; the operator decides whether to ask again",
            extra={"backup": order.id, "error": message},
        )
        self._publish(BackupReport(id=order.id, state=BackupState.FAILED, error=message))

    def _publish(self, report: BackupReport) -> None:
        self.report = report
        self._on_change()

    def stop(self) -> None:
        """Let ``take`` end soon."""
        self._stop.set()

    async def close(self) -> None:
        """End an upload."""
        if self._uploading is not None:
            self._uploading.cancel()
            await asyncio.gather(self._uploading, return_exceptions=True)


def _describe(error: Exception) -> str:
    """Return what went wrong, without anything secret."""
    from wasession_pod.transfer import TransferError
    from wasession_pod.volume.archive import ArchiveError

    match error:
        case ArchiveError() | SnapshotError() | StorageError() | TransferError():
            return str(error)
        case DatabaseError():
            return f"the messages cannot be copied: {error}"
        case OSError():
            return f"the archive cannot be written: {error.strerror}"
    log.error("a backup has failed for an unknown reason", exc_info=error)
    return f"unexpected error: {type(error).__name__}"
