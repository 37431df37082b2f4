"""Runs the session and its HTTP API."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from wasession_api import logs, tracing

from wasession_pod.browser.launch import sandbox_available
from wasession_pod.session import RecoveryExhausted, Session
from wasession_pod.settings import Settings, read, unknown_variables
from wasession_pod.termination import write_termination_message

log = logging.getLogger("wasession_pod")


async def serve(settings: Settings, sockets: Sequence[socket.socket]) -> None:
    """Run the session and its HTTP API until SIGTERM. Raises ``RecoveryExhausted``.

    The session starts first: it need not wait until the API is imported.
    """
    session = Session(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, session.stop)
    running = asyncio.create_task(session.run())
    try:
        serving = await asyncio.to_thread(import_api)
        async with serving(session, settings, sockets):
            if not sandbox_available():
                log.warning("user namespaces are not available; Chromium runs without its sandbox")
            await running
    finally:
        session.stop()
        await running


def import_api() -> Callable[..., AbstractAsyncContextManager[None]]:
    """Import the HTTP API.

    With it comes aiohttp's client, which no session uses, and which would load all of the system's
    certificate authorities at once: they take 2 MiB. Chromium has its own.
    """
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    from wasession_pod.api.app import serving

    return serving


def main(sockets: Sequence[socket.socket]) -> None:
    """Read the settings and serve on ``sockets``; exit with 1 and a reason when that fails."""
    logs.configure()
    for name in unknown_variables(os.environ):
        log.warning("unknown setting; ignoring it", extra={"variable": name})
    try:
        settings = read()
    except ValueError as error:
        fail(f"Invalid settings: {error}")
    logs.configure(namespace=settings.namespace, session=settings.session, uid=settings.session_uid)
    os.environ.pop("WASESSION_TOKEN", None)  # Chromium and Playwright's driver inherit the others
    tracing.configure("wasession-session-pod", _describe(settings))
    os.umask(0o007)  # another user ID of the volume's group can take over what is on it
    try:
        asyncio.run(serve(settings, sockets))
    except RecoveryExhausted as error:
        fail(str(error))
    except Exception as error:
        log.exception("unexpected error; exiting")
        fail(f"{type(error).__name__}: {error}")
    finally:
        tracing.close()


def _describe(settings: Settings) -> dict[str, str]:
    """Return what tells the session pod from others in traces."""
    known = {tracing.NAMESPACE: settings.namespace, tracing.SESSION: settings.session}
    return {name: value for name, value in known.items() if value is not None}


def fail(reason: str) -> NoReturn:
    """Exit with 1, with the reason in the log and in the container's termination message."""
    log.critical("exiting", extra={"reason": reason})
    write_termination_message(reason)
    raise SystemExit(1)
