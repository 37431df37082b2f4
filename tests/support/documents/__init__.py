"""Real documents of WhatsApp Web, from npm's @wppconnect/wa-version, without their scripts."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from support.standin import Running, World, running
from support.standin.tls import self_signed

ORIGIN_HOST, SCRIPT_HOST = "web.whatsapp.com", "static.whatsapp.net"
PACKAGE = Path(__file__).parent / "node_modules" / "@wppconnect" / "wa-version"


def newest() -> Path:
    """The newest document; raises ``FileNotFoundError`` when the package is not installed."""
    found = sorted((PACKAGE / "html").glob("*.html"))
    if not found:
        raise FileNotFoundError(f"run `npm ci --ignore-scripts` in {PACKAGE.parents[2]}")
    return found[-1]


@dataclass
class RealPage:
    """A real document at the real origin: ``flags`` lead Chromium to the stand-in."""

    standin: Running
    flags: list[str]
    url: str = f"https://{ORIGIN_HOST}"


@contextlib.asynccontextmanager
async def real_page(directory: Path, world: World | None = None) -> AsyncIterator[RealPage]:
    """Serves the newest document as web.whatsapp.com, and what it names as static.whatsapp.net.

    The scripts themselves are Meta's and not there: with ``scripts`` "served" they are 404 as well.
    """
    tls, key_hash = self_signed(directory, ORIGIN_HOST)
    async with running(world, tls=tls, scripts=True, document=newest()) as standin:
        assert standin.script_port is not None
        rules = f"MAP {ORIGIN_HOST} 127.0.0.1:{standin.port}"
        rules += f", MAP {SCRIPT_HOST} 127.0.0.1:{standin.script_port}"
        flags = [
            f"--host-resolver-rules={rules}",
            f"--ignore-certificate-errors-spki-list={key_hash}",
        ]
        yield RealPage(standin, flags)


def trust(directory: Path) -> ssl.SSLContext:
    """What a ``Phone`` needs to reach a stand-in of ``real_page(directory)``."""
    return ssl.create_default_context(cafile=str(directory / "tls.pem"))
