"""Copies of a login in a store: what the operator asks of a session pod, and what it reports.

An archive is a tar file, encrypted with age (https://age-encryption.org/v1) to the recipients of
the session's class. The pod uploads it with a URL that the operator has signed, so that it needs no
credentials of the store. Beside each archive the operator writes its manifest, once the upload has
been verified: an archive without one is not complete.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from wasession_api.base import Model, Observed, Time, clip, fallback
from wasession_api.v1alpha1.backup import MAXIMUM_RECIPIENTS, BackupSource, Recipient


class BackupOrder(Model):
    """``PUT /v1/backup``: take a copy of the login and upload it. Idempotent by ``id``."""

    id: str = Field(min_length=1, max_length=64, description="UID of the WhatsAppSessionBackup.")
    url: SecretStr = Field(description="Signed URL for one PUT of the archive.")
    recipients: list[Recipient] = Field(min_length=1, max_length=MAXIMUM_RECIPIENTS)


class BackupState(StrEnum):
    """How far a pod is with a backup."""

    RUNNING = "Running"
    UPLOADED = "Uploaded"
    FAILED = "Failed"


class BackupReport(Observed):
    """The latest backup that the pod was asked for since its start."""

    id: str = Field(max_length=64)
    state: Annotated[BackupState, fallback(BackupState.RUNNING)]
    taken_at: Time | None = None
    size: int | None = Field(None, ge=0, description="Bytes of the encrypted archive.")
    sha256: str | None = Field(None, max_length=64, description="Of the encrypted archive.")
    error: Annotated[str, clip(256)] | None = Field(None, max_length=256)


class Restoration(Observed):
    """What a restoring pod has made of its empty volume, as the volume records it."""

    backup: str = Field(max_length=64, description="UID of the WhatsAppSessionBackup.")
    restored: bool = Field(description="False: the volume was not empty, and was left alone.")
    login_id: str | None = Field(
        None, alias="loginID", max_length=64, description="Of the login, while it is on the volume."
    )
    at: Time


class ArchiveManifest(Observed):
    """The object beside an archive in the store: ``<key>.json``."""

    version: Literal[1] = 1
    backup_name: str = Field(max_length=253)
    backup_uid: str = Field(alias="backupUID", max_length=64)
    source: BackupSource
    taken_at: Time
    size: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
