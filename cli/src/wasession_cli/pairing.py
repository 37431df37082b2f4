"""Link a phone from the terminal: follow the session pod's report, and show its codes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import segno
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import ConditionType, PairingMethod, Phase, Reason

from wasession_cli import formatting, private_file, qr
from wasession_cli.cluster import Cluster
from wasession_cli.exits import Exit, Failure, NotFound, Unreachable
from wasession_cli.session_pod import SessionPod

RETRY_DELAY = 1.0  # seconds between attempts to reach the pod
REDRAW_INTERVAL = 1.0  # seconds; for the countdown, and for a terminal that was resized
MENU = "On the phone: WhatsApp > Settings > Linked devices > Link a device"
SCAN = f"{MENU}. Then scan this."
TYPE = f"{MENU} > Link with phone number instead. Then type this."
KEYS = "Ctrl-C ends this command; the session goes on."


# --- what to show: pure ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """There is no code to show yet, or no more."""

    message: str


@dataclass(frozen=True)
class Code:
    """A code for the phone; it expires at ``until``, a time of ``time.monotonic``."""

    code: LinkCode
    until: float | None


@dataclass(frozen=True)
class End:
    """There is nothing more to show."""

    message: str
    exit: Exit


View = Waiting | Code | End
NEW_CODE = Waiting("Waiting for a new code.")


def view_of_session(name: str, session: Manifest) -> View | None:
    """Return what to show for the resource alone; None when its pod should be asked."""
    status = formatting.status_of(session)
    if session["metadata"].get("deletionTimestamp"):
        return End(f"Session {name} is being deleted.", Exit.NOT_READY)
    if session.get("spec", {}).get("suspend"):
        return End(
            f"Session {name} is suspended. Start it first: kubectl wasession resume {name}",
            Exit.NOT_READY,
        )
    pod_ready = status.condition(ConditionType.POD_READY)
    if status.pod_name and pod_ready is not None and pod_ready.status == "True":
        return None
    ready = status.condition(ConditionType.READY)
    return Waiting(f"Waiting for the session's pod. {ready.message if ready else ''}".strip())


def view_of_report(name: str, report: Report) -> View | None:
    """Return what to show for the pod's report; None when there is a code to fetch."""
    match report.phase:
        case Phase.READY:
            account = report.account
            to = f" to {formatting.describe_account(account)}" if account is not None else ""
            return End(f"Session {name} is linked{to}.", Exit.OK)
        case Phase.AUTHENTICATING:
            available = report.pairing is not None and report.pairing.available
            return None if available else NEW_CODE
        case Phase.FAILED if report.reason == Reason.PAIRING_EXPIRED:
            return End(
                f"{report.message}\nFor new codes: kubectl wasession qr {name}", Exit.NOT_READY
            )
        case Phase.FAILED | Phase.CONFLICT:
            return End(
                f"{report.message}\nFor what to do: kubectl wasession status {name}",
                Exit.NOT_READY,
            )
        case Phase.SYNCING:
            return Waiting(f"The phone is linked. {report.message}".strip())
        case _ if report.session_valid:
            return Waiting(f"This session has a login already. {report.message}".strip())
        case _:
            return Waiting(report.message or "WhatsApp Web is opening.")


def screen(
    name: str,
    view: Waiting | Code,
    columns: int,
    lines: int,
    now: float,
    *,
    colors: bool = True,
    image: Path | None = None,
) -> list[str]:
    """Return the lines of the whole screen; ``now`` is a time of ``time.monotonic``.

    With ``image``, that file has the QR code, not the screen.
    """
    if isinstance(view, Waiting):
        return [f"Session {name}", "", formatting.plain(view.message), "", KEYS]
    left = "" if view.until is None else f", {max(int(view.until - now), 0)} s left"
    state = f"Session {name}: round {view.code.attempt}{left}. {KEYS}"
    if view.code.method is PairingMethod.PAIRING_CODE:
        return [TYPE, "", f"    {formatting.plain(grouped(view.code.code))}", "", state]
    if image is not None:
        return [f"{MENU}.", "Then scan the QR code in this file:", str(image), "", state]
    matrix = qr.matrix(view.code.code)
    zone = qr.quiet_zone(len(matrix), columns, lines - 2)
    if zone is None:
        needed = len(matrix) + 2 * qr.QUIET_ZONES[-1]
        return [
            f"The QR code needs {needed} columns and {(needed + 1) // 2 + 2} lines; "
            f"this terminal has {columns} and {lines}.",
            "Enlarge the window, reduce the font size, or save the QR code as an image:",
            f"kubectl wasession qr {name} --image qr.png",
            "",
            state,
        ]
    return [SCAN[:columns], *qr.half_blocks(matrix, zone, colors=colors), state[:columns]]


def grouped(code: str) -> str:
    """Return a pairing code as the phone shows it: ``ABCD-EFGH``."""
    return f"{code[:4]}-{code[4:]}" if len(code) == 8 else code


# --- where to show it -----------------------------------------------------------------------------


class Screen(Protocol):
    """Where the views go; ``show`` is called again and again, also with the same view."""

    def show(self, view: Waiting | Code) -> None: ...


class Terminal:
    """The terminal's alternate screen: it leaves nothing behind, not even in the scrollback."""

    def __init__(
        self,
        name: str,
        write: Callable[[str], None],
        size: Callable[[], tuple[int, int]],
        *,
        colors: bool,
        image: Path | None = None,
    ) -> None:
        self._name, self._write, self._size = name, write, size
        self._colors, self._image = colors, image

    def __enter__(self) -> Self:
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\x1b[2J\x1b[?25h\x1b[?1049l")

    def show(self, view: Waiting | Code) -> None:
        columns, height = self._size()
        now = time.monotonic()
        lines = screen(
            self._name, view, columns, height, now, colors=self._colors, image=self._image
        )
        self._write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")


class Progress:
    """Lines on standard output in place of a screen, without codes; for ``--image`` in scripts."""

    def __init__(self, write: Callable[[str], None], image: Path) -> None:
        self._write, self._image = write, image
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, view: Waiting | Code) -> None:
        if isinstance(view, Waiting):
            line = formatting.plain(view.message)
        elif view.code.method is PairingMethod.PAIRING_CODE:
            raise Failure("the session uses pairing codes, which are shown on terminals only")
        else:
            line = f"The QR code of round {view.code.attempt} is in {self._image}."
        if line != self._last:
            self._write(f"{line}\n")
        self._last = line


class ImageFile:
    """A file with the current QR code, readable by its owner only, and removed with the code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._code: str | None = None

    def update(self, view: View) -> None:
        """Write the view's QR code; remove the file when it has none."""
        is_qr = isinstance(view, Code) and view.code.method is PairingMethod.QR_CODE
        code = view.code.code if isinstance(view, Code) and is_qr else None
        if code == self._code:
            return
        if code is None:
            self._path.unlink(missing_ok=True)
        else:
            self._write(code)
        self._code = code

    def close(self) -> None:
        self.update(Waiting(""))

    def _write(self, code: str) -> None:
        kind = self._path.suffix.removeprefix(".").lower()
        with private_file.replacing(self._path) as file:
            segno.make_qr(code, error="l").save(file, kind=kind, scale=8)


# --- following the session ------------------------------------------------------------------------


class Pairing:
    """Show codes until a phone is linked or there are no more."""

    def __init__(
        self, cluster: Cluster, name: str, screen: Screen, image: ImageFile | None = None
    ) -> None:
        self._cluster, self._name = cluster, name
        self._screen, self._image = screen, image
        self._view: Waiting | Code = Waiting("Looking up the session.")
        self._may_renew = True

    async def run(self) -> End:
        """Return how it ended. Raises ``Failure``; ``NotFound`` when there is no such session."""
        redrawing = asyncio.create_task(self._redraw())
        try:
            while True:
                try:
                    return await self._follow()
                except Unreachable as error:
                    self._show(Waiting(f"{error}. Retrying."))
                    await asyncio.sleep(RETRY_DELAY)
        finally:
            redrawing.cancel()
            if self._image is not None:
                self._image.close()

    async def _follow(self) -> End:
        session = await self._session_with_pod()
        if isinstance(session, End):
            return session
        async with self._cluster.pod(session) as pod:
            async for report in pod.reports():
                view = await self._view_of(pod, report)
                if isinstance(view, End):
                    return view
                self._show(view)
        raise Unreachable("the session pod closed the connection")

    async def _session_with_pod(self) -> Manifest | End:
        """Return the session once its pod can be asked."""
        async for session in self._cluster.watch_session(self._name):
            view = view_of_session(self._name, session)
            if view is None:
                return session
            if isinstance(view, End):
                return view
            assert isinstance(view, Waiting)
            self._show(view)
        raise NotFound(f"there is no session {self._name}")

    async def _view_of(self, pod: SessionPod, report: Report) -> View:
        if report.reason == Reason.PAIRING_EXPIRED and self._may_renew:
            self._may_renew = False  # once: after that many rounds the command ends
            await pod.renew_code()
            return NEW_CODE
        view = view_of_report(self._name, report)
        if view is not None:
            return view
        self._may_renew = False
        current = await pod.link_code()
        if current is None:
            return NEW_CODE
        left = current.seconds_left
        return Code(current.code, None if left is None else time.monotonic() + left)

    def _show(self, view: Waiting | Code) -> None:
        self._view = view
        if self._image is not None:
            self._image.update(view)
        self._screen.show(view)

    async def _redraw(self) -> None:
        while True:
            await asyncio.sleep(REDRAW_INTERVAL)
            self._show(self._view)
