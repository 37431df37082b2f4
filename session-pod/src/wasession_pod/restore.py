"""``python -m wasession_pod.restore``: fill an empty volume from a backup, then exit.

The pod's init container runs it before the session starts, and again after each failure. A volume
that has anything is left alone. At whatever moment this process is killed, the volume stays empty
or holds the whole login.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, StringConstraints
from wasession_api import logs
from wasession_api.v1alpha1.backup import IDENTITY_KEY, IDENTITY_SECRET_NAME

from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import renew
from wasession_pod.settings import VolumeSettings, read_as
from wasession_pod.termination import write_termination_message
from wasession_pod.transfer import TransferError, download
from wasession_pod.volume import archive
from wasession_pod.volume.archive import ArchiveError, Index
from wasession_pod.volume.volume import RestorationRecord, StorageError, Volume, login_id

B = TypeVar("B", bound="BackupSettings")
# What is on the volume at once: the archive encrypted and decrypted, or decrypted and extracted.
COPIES = 2
log = logging.getLogger("wasession_pod")


class BackupSettings(VolumeSettings):
    """The volume, and the backup that it begins with."""

    restore_backup: str = Field(
        min_length=1, max_length=64, description="UID of the WhatsAppSessionBackup."
    )
    restore_login_id: str = Field(min_length=1, max_length=64)


class RestoreSettings(BackupSettings):
    """What the volume is to be filled with."""

    restore_url: SecretStr = Field(description="Signed URL for one GET of the archive.")
    restore_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    restore_size: int = Field(ge=1, description="Bytes of the archive.")
    restore_identity: Path = Path("/etc") / IDENTITY_SECRET_NAME / IDENTITY_KEY


class RestoreError(Exception):
    """The volume was not filled, and is still empty; the message is a sentence."""


def restore(settings: RestoreSettings) -> bool:
    """Fill the volume; return False if it was left alone. Raises ``RestoreError``."""
    volume = volume_of(settings)
    try:
        staging = volume.begin_restoration(settings.restore_backup, COPIES * settings.restore_size)
        if staging is None:
            return False
        index = _fill(staging, volume.profile.name, settings)
        volume.commit_restoration(
            RestorationRecord(
                backup=settings.restore_backup,
                restored=True,
                login_id=settings.restore_login_id,
                at=datetime.now(UTC),
                login=index.login,
            )
        )
    except (ArchiveError, TransferError, StorageError) as error:
        raise RestoreError(str(error)) from None
    except DatabaseError as error:
        raise RestoreError(f"the archive's messages are not usable: {error}") from None
    except OSError as error:
        raise RestoreError(f"the volume can't be used: {error.strerror}") from None
    finally:
        volume.close()
    return True


def volume_of(settings: BackupSettings) -> Volume:
    return Volume(
        settings.data_dir,
        settings.client_id,
        settings.session_uid,
        settings.minimum_free_bytes,
        settings.owner,
        settings.previous_owners,
    )


def _fill(staging: Path, profile: str, settings: RestoreSettings) -> Index:
    """Put the archive's login into ``staging``; return what the archive says of it."""
    try:
        identities = settings.restore_identity.read_text()
    except (OSError, UnicodeDecodeError):
        raise ArchiveError(
            f"the Secret {IDENTITY_SECRET_NAME} has no readable key {IDENTITY_KEY}"
        ) from None
    encrypted, plain = staging / "archive.age", staging / "archive.tar"
    url, size = settings.restore_url.get_secret_value(), settings.restore_size
    asyncio.run(download(url, encrypted, size, settings.restore_sha256))
    archive.decrypt(encrypted, identities, plain)
    encrypted.unlink()
    index = archive.extract(plain, staging, profile)
    if login_id(index.account, index.login) != settings.restore_login_id:
        raise ArchiveError("the archive holds another login than the backup says")
    plain.unlink()
    renew_messages(staging)
    return index


def renew_messages(directory: Path) -> None:
    """Make the messages in a directory, if any, those of a copy. Raises ``DatabaseError``."""
    if (directory / archive.MESSAGES).exists():
        database = Database(directory / archive.MESSAGES)
        try:
            renew(database)
        finally:
            database.close()


def run(model: type[B], restore: Callable[[B], bool]) -> None:
    """Read the settings and restore; exit with 1 and a sentence when that fails."""
    logs.configure()
    os.umask(0o007)  # as the session does
    try:
        settings = read_as(model)
        logs.configure(
            namespace=settings.namespace, session=settings.session, uid=settings.session_uid
        )
        restored = restore(settings)
    except ValueError as error:
        fail(f"invalid settings: {error}")
    except RestoreError as error:
        fail(str(error))
    except Exception as error:
        log.exception("unexpected error; exiting")
        fail(f"unexpected error: {type(error).__name__}")
    else:
        what = "backup restored" if restored else "the volume is in use already; left as it is"
        log.info(what, extra={"backup": settings.restore_backup})


def fail(reason: str) -> None:
    message = f"The backup was not restored: {reason}."
    sys.stderr.write(f"{message}\n")
    write_termination_message(message)
    raise SystemExit(1)


if __name__ == "__main__":
    run(RestoreSettings, restore)
