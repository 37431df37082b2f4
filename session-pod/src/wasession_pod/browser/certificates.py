"""Certificate authorities that Chromium trusts besides its own: an NSS database in its home.

Imported only where a bundle is configured.
"""

from __future__ import annotations

import functools
import re
import ssl
import subprocess
from pathlib import Path

from wasession_pod.browser.launch import empty_directory

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
PEM = re.compile(BEGIN + b".*?" + END, re.DOTALL)
DATABASE = ".pki/nssdb"  # where Chromium looks for it in its home
TRUSTED_FOR_TLS = "C,,"
CERTUTIL_TIMEOUT = 60.0  # seconds; 150 certificates take less than one


class InvalidBundle(ValueError):
    """The bundle is not usable; the message is a predicate, such as "is empty"."""


@functools.lru_cache(maxsize=1)
def parse(bundle: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a bundle in PEM; raise ``InvalidBundle``."""
    if not bundle.strip():
        raise InvalidBundle("is empty")
    blocks = PEM.findall(bundle)
    if len(blocks) != bundle.count(BEGIN):
        raise InvalidBundle("ends within a certificate")
    if not blocks:
        raise InvalidBundle("contains no certificate in PEM")
    certificates = tuple(dict.fromkeys(blocks))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, certificate in enumerate(certificates, 1):
        try:
            der = ssl.PEM_cert_to_DER_cert(certificate.decode("ascii"))
            context.load_verify_locations(cadata=der)
        except (ValueError, ssl.SSLError):
            raise InvalidBundle(
                f"has a certificate that is not readable: number {number}"
            ) from None
    return certificates


@functools.lru_cache(maxsize=1)
def make_home(bundle: bytes) -> Path:
    """Return a home directory for Chromium in which it finds the bundle's certificates.

    Raises ``InvalidBundle``, and ``OSError`` or ``subprocess.SubprocessError`` if ``certutil``
    cannot be run.
    """
    certificates = parse(bundle)
    home = empty_directory("home")
    (home / DATABASE).mkdir(parents=True)
    _certutil(home, "-N", "--empty-password")
    commands = []
    for number, certificate in enumerate(certificates, 1):
        (home / f"{number}.pem").write_bytes(certificate + b"\n")
        commands.append(f"-A -n ca-{number} -t {TRUSTED_FOR_TLS} -a -i {number}.pem\n")
    (home / "commands").write_text("".join(commands))
    _certutil(home, "-B", "-i", "commands")
    return home


def _certutil(home: Path, *arguments: str) -> None:
    result = subprocess.run(
        ["certutil", "-d", f"sql:{DATABASE}", *arguments],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=CERTUTIL_TIMEOUT,
    )
    if result.returncode != 0:
        reason = " ".join(result.stderr.split())[:200]
        raise InvalidBundle(f"certutil failed: {reason}")
