"""Derive the bearer tokens of session pods from keys, so that nobody has to read them in Secrets.

The operator has the master key of the installation. A gateway has the key of its namespace alone,
from which no other namespace's tokens follow. A session's token follows from its namespace's key,
its UID and its epoch; a rotation raises the epoch, which is in the session's status.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_LENGTH = 32  # bytes
_ID_LENGTH = 8  # characters


def namespace_key(master_key: bytes, namespace: str) -> bytes:
    """Return the key of a namespace's sessions."""
    return _derive(master_key, f"wasession.dev/namespace/{namespace}")


def derive_token(key: bytes, uid: str, epoch: int) -> str:
    """Return the token of the session with this UID; ``key`` is that of its namespace."""
    derived = _derive(key, f"wasession.dev/session/{uid}/{epoch}")
    return base64.urlsafe_b64encode(derived).rstrip(b"=").decode()


def derive_tokens(key: bytes, uid: str, epoch: int) -> list[str]:
    """Return the tokens that the session's pod may accept, the present one first.

    After a rotation the pod knows only the previous one for up to a minute, until kubelet has
    updated the mounted Secret.
    """
    return [derive_token(key, uid, number) for number in (epoch, epoch - 1) if number >= 0]


def token_id(token: str) -> str:
    """Return what identifies a token without disclosing it."""
    return hashlib.sha256(token.encode()).hexdigest()[:_ID_LENGTH]


def _derive(key: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), KEY_LENGTH, salt=None, info=purpose.encode()).derive(key)
