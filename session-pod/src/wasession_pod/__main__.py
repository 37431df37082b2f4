"""``python -m wasession_pod``: holds one session until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from wasession_pod import logs
from wasession_pod.app import application
from wasession_pod.browser import sandbox_possible
from wasession_pod.journal import Journal
from wasession_pod.messages import Messages
from wasession_pod.session import GaveUp, Session
from wasession_pod.settings import Settings, read, unknown

TERMINATION_LOG = Path("/dev/termination-log")
log = logging.getLogger("wasession_pod")


async def serve(settings: Settings) -> None:
    """HTTP first, so that the pod says how it is from its first second; then the session."""
    session = Session(settings)
    journal = Journal(settings.data_dir / "messages.sqlite")
    messages = Messages(session, journal, settings.send_timeout)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, session.stop)
    runner = web.AppRunner(application(session, messages, settings), shutdown_timeout=0.5, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        if not sandbox_possible():
            log.warning("no user namespaces here: Chromium runs without its sandbox")
        await session.run()
    finally:
        await runner.cleanup()
        journal.close()


def main() -> None:
    logs.configure()
    for name in unknown(os.environ):
        log.warning("no such setting", extra={"variable": name})
    try:
        settings = read()
    except ValueError as error:
        end_with(f"bad settings: {error}")
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
