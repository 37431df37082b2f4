"""Mounted files whose content the settings name by its SHA-256: wa-js, and a document of the page.

Who may edit a ConfigMap in a session's namespace can withhold such a file, and not replace it.
"""

from __future__ import annotations

import functools
import hashlib
import re
import zlib
from pathlib import Path

MAXIMUM = 8 * 2**20  # bytes, unpacked; wa-js has 0.5 MiB, the largest known document 1.1 MiB
GZIP = b"\x1f\x8b"
GZIP_FORMAT = 31  # ``wbits`` of zlib: a header and a trailer of gzip
# The comments are an atomic group: each ends at its first "-->", however the match goes on.
HTML = re.compile(
    rb"(\xef\xbb\xbf)?\s*(?><!--.*?-->\s*)*+<(!doctype\s+html|html)\b", re.I | re.DOTALL
)
HEAD, TAIL = 4096, 1024  # bytes in which a document begins and ends
BANNER = re.compile(rb"wa-js v([0-9]+\.[0-9]+\.[0-9]+[-+.0-9A-Za-z]{0,40})")
BANNER_END = 1024  # bytes; wa-js names its version in its second line


class InvalidFile(ValueError):
    """The file is not usable; the message is a predicate, such as "does not exist"."""


def read(path: Path, sha256: str) -> bytes:
    """Return the unpacked content, in UTF-8; raise ``InvalidFile``.

    ConfigMaps hold at most 1 MiB, so the file may be packed with gzip. The SHA-256 is that of the
    unpacked content.
    """
    try:
        status = path.stat()
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return _read(path, identity, sha256)
    except FileNotFoundError:
        raise InvalidFile(_missing(path)) from None
    except OSError as error:
        raise InvalidFile(f"is not readable: {error.strerror}") from None


@functools.lru_cache(maxsize=2)  # of the two files that a browser starts with
def _read(path: Path, _identity: tuple[int, ...], sha256: str) -> bytes:
    content = _unpack(path.read_bytes())
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise InvalidFile(f"has the SHA-256 {actual} instead of {sha256}")
    try:
        content.decode()
    except UnicodeDecodeError:
        raise InvalidFile("is not text in UTF-8") from None
    return content


def _unpack(content: bytes) -> bytes:
    if content.startswith(GZIP):
        unpacker = zlib.decompressobj(GZIP_FORMAT)
        try:
            content = unpacker.decompress(content, MAXIMUM + 1)
        except zlib.error:
            raise InvalidFile("is not valid gzip") from None
        if not unpacker.eof and len(content) <= MAXIMUM:
            raise InvalidFile("ends within its gzip")
    if len(content) > MAXIMUM:
        raise InvalidFile(f"is larger than {MAXIMUM // 2**20} MiB")
    return content


def _missing(path: Path) -> str:
    """Return why a key's file is not there: no ConfigMap, or one without the key."""
    try:
        keys = sorted(entry.name for entry in path.parent.iterdir() if entry.name[:2] != "..")
    except OSError:
        keys = []
    if not keys:
        return "does not exist: the namespace has no such ConfigMap, or it is empty"
    return f"does not exist: the ConfigMap has the keys {', '.join(keys)[:200]}"


def require_html(document: bytes) -> None:
    """Raise ``InvalidFile`` if a document is not HTML, or not all of one."""
    if HTML.match(document[:HEAD]) is None:
        raise InvalidFile("is not HTML: it begins with neither <!DOCTYPE html> nor <html>")
    if b"</html>" not in document[-TAIL:].lower():
        raise InvalidFile("is not all of a document: it does not end with </html>")


def wa_js_version(script: bytes) -> str | None:
    """Return the version that wa-js's own banner names; None if there is none."""
    match = BANNER.search(script[:BANNER_END])
    return None if match is None else match[1].decode()
