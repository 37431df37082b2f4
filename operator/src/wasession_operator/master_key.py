"""The installation's master key, in a mounted file."""

from __future__ import annotations

import base64
import binascii
import logging
from pathlib import Path

from wasession_api.session_pod.token_derivation import KEY_LENGTH, namespace_key

log = logging.getLogger(__name__)


class InvalidMasterKey(Exception):
    """The file has no key; the message says why, without the file's content."""


class MasterKey:
    """The key in a file: at least 32 bytes in base64, with or without white space around them.

    Raises ``InvalidMasterKey``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = _read(path)
        self._key = decode(self._content)

    def refresh(self) -> bool:
        """Read the file again; return whether the key has changed.

        One that cannot be used does not replace the present key.
        """
        try:
            content = _read(self._path)
            if content == self._content:
                return False
            key = decode(content)
        except InvalidMasterKey as error:
            log.warning(
                "the master key cannot be read; using the last one", extra={"error": str(error)}
            )
            return False
        changed, self._content, self._key = key != self._key, content, key
        return changed

    def of(self, namespace: str) -> bytes:
        """Return the key of a namespace's sessions."""
        return namespace_key(self._key, namespace)


def decode(content: bytes) -> bytes:
    """Return the key in a file's content; raise ``InvalidMasterKey``."""
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMasterKey("it is not base64") from None
    if len(key) < KEY_LENGTH:
        raise InvalidMasterKey(f"it has less than {KEY_LENGTH} bytes")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidMasterKey(f"{path}: {error.strerror}") from None
