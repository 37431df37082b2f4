"""``python -m wasession_pod``: holds one session until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NoReturn

from wasession_api import logs

from wasession_pod.browser.browser import sandbox_possible
from wasession_pod.session import GaveUp, Session
from wasession_pod.settings import Settings, read, unknown

TERMINATION_LOG = Path("/dev/termination-log")
SECRETS = (
    "WASESSION_TOKEN",
    "WASESSION_PROXY_SERVER",
    "WASESSION_PROXY_USERNAME",
    "WASESSION_PROXY_PASSWORD",
)
log = logging.getLogger("wasession_pod")


async def serve(settings: Settings) -> None:
    """The session at once, and HTTP beside it: its modules take as long to import as Playwright's driver takes to start."""
    session = Session(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, session.stop)
    holding = asyncio.create_task(session.run())
    try:
        serving = await asyncio.to_thread(import_serving)
        async with serving(session, settings):
            if not sandbox_possible():
                log.warning("no user namespaces here: Chromium runs without its sandbox")
            await holding
    finally:
        session.stop()
        await holding


def import_serving() -> Callable[[Session, Settings], AbstractAsyncContextManager[None]]:
    from wasession_pod.api.app import serving

    return serving


def main() -> None:
    logs.configure()
    for name in unknown(os.environ):
        log.warning("no such setting", extra={"variable": name})
    try:
        settings = read()
    except ValueError as error:
        end_with(f"bad settings: {error}")
    for name in SECRETS:  # Chromium and Playwright's driver get this environment
        os.environ.pop(name, None)
    try:
        asyncio.run(serve(settings))
    except GaveUp as error:
        end_with(str(error))
    except Exception as error:
        log.exception("ended by an error")
        end_with(f"{type(error).__name__}: {error}")


def end_with(reason: str) -> NoReturn:
    """Ends the process with a reason, in the log and where Kubernetes takes the container's last words from."""
    log.critical("ended", extra={"reason": reason})
    with contextlib.suppress(OSError):
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(reason[:4096])
    raise SystemExit(1)


if __name__ == "__main__":
    main()
