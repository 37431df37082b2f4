"""Messages to send, as the API has received them."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from wasession_api.session_pod.messages import SendMedia, SendText


@dataclass(frozen=True)
class Attachment:
    """A received file, alone in a directory of its own."""

    path: Path
    sha256: str
    name: str | None
    mime_type: str | None

    def delete(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class OutgoingMessage:
    """A text, or a file with its ``attachment``."""

    body: SendText | SendMedia
    attachment: Attachment | None = None

    @property
    def fingerprint(self) -> bytes:
        """A hash of the message, which detects an Idempotency-Key reused for another one."""
        file = self.attachment
        attributes = [file.sha256, file.name, file.mime_type] if file else None
        content = json.dumps([self.body.dump(), attributes], sort_keys=True)
        return hashlib.sha256(content.encode()).digest()

    def delete_attachment(self) -> None:
        if self.attachment is not None:
            self.attachment.delete()
