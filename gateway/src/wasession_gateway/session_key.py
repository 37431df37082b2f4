"""The key from which the tokens of this namespace's session pods are derived, in a mounted file."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

from wasession_api.session_pod.token_derivation import KEY_LENGTH, derive_tokens

log = logging.getLogger(__name__)
TEXT_LENGTH = 4 * ((KEY_LENGTH + 2) // 3)  # characters of base64


class KeyMissing(Exception):
    """There is no key yet; the message says why, without the file's content."""


class SessionKey:
    """The key, read again whenever its file changes.

    kubelet replaces the file when the operator rotates the master key. Until pods have tokens of
    the new key, the previous one is tried as well. A key that has been read stays in use when the
    file disappears or becomes invalid: the pods' tokens are still those of this key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, ...] | None = ()  # of the file when it was last read
        self._keys: list[bytes] = []  # the present one, and the previous one if any
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why there is no key; empty if there is one."""
        self._refresh()
        return "" if self._keys else self._problem

    def tokens(self, uid: str, epoch: int) -> list[str]:
        """Return the tokens that the session's pod may accept, the likeliest first.

        Raises ``KeyMissing``.
        """
        self._refresh()
        if not self._keys:
            raise KeyMissing(self._problem)
        return [token for key in self._keys for token in derive_tokens(key, uid, epoch)]

    def _refresh(self) -> None:
        """Read the file if it has changed; it is in memory (tmpfs), so that nothing waits."""
        try:
            file = self._path.stat()
            version: tuple[int, ...] | None = (file.st_dev, file.st_ino, file.st_mtime_ns)
        except OSError:
            version = None
        if version == self._version:
            return
        self._version = version
        try:
            key = decode(self._path.read_bytes())
        except OSError as error:
            self._note_problem(f"cannot read the session key {self._path}: {error.strerror}")
        except ValueError as error:
            self._note_problem(f"the session key {self._path} is invalid: {error}")
        else:
            if key not in self._keys[:1]:
                self._keys = [key, *self._keys[:1]]
                log.info("session key read", extra={"path": str(self._path)})
            self._problem = ""

    def _note_problem(self, problem: str) -> None:
        self._problem = f"{problem}; the operator writes it to the mounted Secret"
        follows = "continuing with the key read before" if self._keys else "not ready without it"
        log.warning("no session key; %s", follows, extra={"error": problem})


def decode(content: bytes) -> bytes:
    """Return the key of a file's content; raise ``ValueError``, which never has the content."""
    if len(content) != TEXT_LENGTH:
        raise ValueError(f"it must have {TEXT_LENGTH} characters and has {len(content)}")
    try:
        key = base64.b64decode(content, validate=True)
    except ValueError:
        raise ValueError("it must be standard base64 text") from None
    if len(key) != KEY_LENGTH:
        raise ValueError(f"it must encode {KEY_LENGTH} bytes")
    return key
