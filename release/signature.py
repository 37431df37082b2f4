"""Checksums, and a signature of them that ``cosign verify-blob`` and openssl can check."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class KeyNotUsable(Exception):
    """A file that is no private key as cosign uses them; the message says why."""


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(digests: Mapping[str, str]) -> str:
    """Return what ``sha256sum --check`` reads."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def load_key(path: Path, password: str | None) -> ec.EllipticCurvePrivateKey:
    """Return a private key of ECDSA P-256 in PEM; raise ``KeyNotUsable``."""
    try:
        key = serialization.load_pem_private_key(
            path.read_bytes(), password.encode() if password else None
        )
    except (OSError, TypeError, ValueError) as error:
        raise KeyNotUsable(f"{path}: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise KeyNotUsable(f"{path}: not a key of ECDSA P-256")
    return key


def sign(key: ec.EllipticCurvePrivateKey, text: str) -> str:
    """Return the signature in base64, as ``cosign sign-blob`` prints it."""
    return base64.b64encode(key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))).decode() + "\n"


def public_key(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key in PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()
