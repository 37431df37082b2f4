"""Files as WhatsApp stores them: encrypted under keys that only the message has.

Sources: whatsmeow's download.go and upload.go, and Baileys' messages-media.ts. A message has a key
of 32 bytes. HKDF with SHA-256 and the kind's text makes of it a vector and a key for AES-CBC, and a
key for the MAC, whose first 10 bytes follow the encrypted file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel

MediaKind = Literal["image", "video", "audio", "ptt", "document", "sticker"]
KEY_TEXTS: dict[MediaKind, bytes] = {
    "image": b"WhatsApp Image Keys",
    "sticker": b"WhatsApp Image Keys",
    "video": b"WhatsApp Video Keys",
    "audio": b"WhatsApp Audio Keys",
    "ptt": b"WhatsApp Audio Keys",
    "document": b"WhatsApp Document Keys",
}
MAC_SIZE = 10  # bytes
BLOCK = 16  # bytes


class FileKeys(BaseModel):
    """What a message has to download a file and to decrypt it; hashes and key in Base64."""

    direct_path: str
    media_key: str
    filehash: str  # SHA-256 of the file
    enc_filehash: str  # SHA-256 of what is downloaded


class Broken(ValueError):
    """A file is not what its message says."""


class _Keys(NamedTuple):
    vector: bytes
    cipher: bytes
    mac: bytes


def encrypt(content: bytes, kind: MediaKind) -> tuple[bytes, bytes]:
    """Return a new key for a message, and the file encrypted under it."""
    media_key = secrets.token_bytes(32)
    keys = _expand(media_key, kind)
    pad = padding.PKCS7(8 * BLOCK).padder()
    cipher = Cipher(algorithms.AES(keys.cipher), modes.CBC(keys.vector)).encryptor()
    encrypted = cipher.update(pad.update(content) + pad.finalize()) + cipher.finalize()
    return media_key, encrypted + _mac(keys, encrypted)


def decrypt(data: bytes, kind: MediaKind, file: FileKeys) -> bytes:
    """Return the file; raise ``Broken`` if its hashes, its MAC or its key are wrong."""
    if digest(data) != file.enc_filehash:
        raise Broken("the encrypted file has another hash")
    try:
        keys = _expand(base64.b64decode(file.media_key, validate=True), kind)
    except binascii.Error as error:
        raise Broken("the key is not Base64") from error
    encrypted, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
    if not hmac.compare_digest(mac, _mac(keys, encrypted)):
        raise Broken("the MAC is wrong")
    cipher = Cipher(algorithms.AES(keys.cipher), modes.CBC(keys.vector)).decryptor()
    unpad = padding.PKCS7(8 * BLOCK).unpadder()
    content = unpad.update(cipher.update(encrypted) + cipher.finalize()) + unpad.finalize()
    if digest(content) != file.filehash:
        raise Broken("the file has another hash")
    return content


def digest(data: bytes) -> str:
    """Return a hash as messages have it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _expand(media_key: bytes, kind: MediaKind) -> _Keys:
    keys = HKDF(hashes.SHA256(), length=112, salt=None, info=KEY_TEXTS[kind]).derive(media_key)
    return _Keys(keys[:16], keys[16:48], keys[48:80])


def _mac(keys: _Keys, encrypted: bytes) -> bytes:
    return hmac.digest(keys.mac, keys.vector + encrypted, "sha256")[:MAC_SIZE]
