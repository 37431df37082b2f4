"""Linking a phone from the terminal: what the session pod says decides what the screen shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import PairingMethod, Phase, Reason

from wasession_cli import formatting as words
from wasession_cli import qr
from wasession_cli.cluster import Cluster
from wasession_cli.exits import Exit, NotFound, Unreachable
from wasession_api.kube.manifests import Manifest
from wasession_cli.session_pod import Offer, Pod

TRY_AGAIN = 1.0  # seconds before a pod that cannot be reached is asked again
TICK = 1.0  # seconds between redraws, for the time that is left and for a terminal of another size
SCAN = "On the phone: WhatsApp > Settings > Linked devices > Link a device. Then scan this."
TYPE = "On the phone: WhatsApp > Settings > Linked devices > Link a device > Link with phone number instead. Then type this."


# --- what is to be shown: pure --------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """Nothing to scan yet, or no more."""

    words: str


@dataclass(frozen=True)
class Code:
    """A code for the phone; ``until`` is when it ends, by ``time.monotonic``."""

    offer: Offer
    until: float | None


@dataclass(frozen=True)
class End:
    """There is nothing more to show."""

    words: str
    exit: Exit


View = Waiting | Code | End


def before_the_pod(name: str, session: Manifest) -> View | None:
    """What the resource alone says; None when the pod should be asked."""
    status = words.status_of(session)
    if session["metadata"].get("deletionTimestamp"):
        return End(f"Session {name} is being deleted.", Exit.NOT_READY)
    if session.get("spec", {}).get("suspend"):
        return End(
            f"Session {name} is suspended. Start it first: kubectl wasession resume {name}",
            Exit.NOT_READY,
        )
    pod, ready = words.condition(status, "PodReady"), words.condition(status, "Ready")
    if status.pod_name and pod is not None and pod.status == "True":
        return None
    return Waiting(
        f"Waiting for the session's pod. {ready.message if ready is not None else ''}".strip()
    )


def from_the_pod(name: str, report: Report) -> View | None:
    """What the pod's report says; None when there should be a code to fetch."""
    match report.phase:
        case Phase.READY:
            who = f" to {words.account(report.account)}" if report.account is not None else ""
            return End(f"Session {name} is linked{who}.", Exit.OK)
        case Phase.AUTHENTICATING:
            return (
                None
                if report.pairing is not None and report.pairing.available
                else Waiting("Waiting for a new code.")
            )
        case Phase.FAILED if report.reason == Reason.PAIRING_EXPIRED:
            return End(
                f"{report.message}\nFor new codes: kubectl wasession qr {name}", Exit.NOT_READY
            )
        case Phase.FAILED | Phase.CONFLICT:
            return End(
                f"{report.message}\nkubectl wasession status {name} says what to do.",
                Exit.NOT_READY,
            )
        case Phase.SYNCING:
            return Waiting(f"The phone is linked. {report.message}".strip())
        case _ if report.session_valid:
            return Waiting(f"This session has a login already. {report.message}".strip())
        case _:
            return Waiting(report.message or "WhatsApp Web is being opened.")


def screen(
    name: str, view: Waiting | Code, columns: int, lines: int, now: float, *, colors: bool = True
) -> list[str]:
    """The whole screen as lines; ``now`` is of the clock of ``Code.until``."""
    keys = "Ctrl-C ends this; the session goes on."
    if isinstance(view, Waiting):
        return [f"Session {name}", "", words.plain(view.words), "", keys]
    left = "" if view.until is None else f", {max(int(view.until - now), 0)} s left"
    state = f"Session {name}: round {view.offer.attempt}{left}. {keys}"
    if view.offer.method is PairingMethod.PAIRING_CODE:
        return [TYPE, "", f"    {words.plain(spaced(view.offer.code))}", "", state]
    matrix = qr.matrix(view.offer.code)
    zone = qr.quiet_zone(len(matrix), columns, lines - 2)
    if zone is None:
        needed = len(matrix) + 2 * qr.QUIET_ZONES[-1]
        sizes = f"The QR needs {needed} columns and {(needed + 1) // 2 + 2} lines; this terminal has {columns} and {lines}."
        return [sizes, "Make the window larger or the letters smaller.", "", state]
    return [SCAN[:columns], *qr.half_blocks(matrix, zone, colors=colors), state[:columns]]


def spaced(code: str) -> str:
    """Eight letters as the phone shows them: ``ABCD-EFGH``."""
    return f"{code[:4]}-{code[4:]}" if len(code) == 8 else code


# --- showing it -----------------------------------------------------------------------------------


class Screen(Protocol):
    """Where the lines go."""

    def size(self) -> tuple[int, int]: ...

    def draw(self, lines: list[str]) -> None: ...


class Pairing:
    """Shows codes until a phone is linked or there are no more."""

    def __init__(self, cluster: Cluster, name: str, screen: Screen, *, colors: bool) -> None:
        self._cluster, self._name = cluster, name
        self._screen, self._colors = screen, colors
        self._view: Waiting | Code = Waiting("Looking for the session.")
        self._may_renew = True

    async def run(self) -> End:
        """Returns how it ended. Raises ``Failure``; ``NotFound`` when there is no such session."""
        ticking = asyncio.create_task(self._tick())
        try:
            while True:
                try:
                    end = await self._try()
                except Unreachable as error:
                    self._show(Waiting(f"{error}. It is tried again."))
                    await asyncio.sleep(TRY_AGAIN)
                    continue
                return end
        finally:
            ticking.cancel()

    async def _try(self) -> End:
        session = await self._with_pod()
        if isinstance(session, End):
            return session
        async with self._cluster.pod(session) as pod:
            async for report in pod.reports():
                view = await self._look(pod, report)
                if isinstance(view, End):
                    return view
                self._show(view)
        raise Unreachable("the session pod has ended the connection")

    async def _with_pod(self) -> Manifest | End:
        """The session once it has a pod to ask."""
        async for session in self._cluster.follow(self._name):
            view = before_the_pod(self._name, session)
            if view is None:
                return session
            if isinstance(view, End):
                return view
            assert isinstance(view, Waiting)
            self._show(view)
        raise NotFound(f"there is no session {self._name}")

    async def _look(self, pod: Pod, report: Report) -> View:
        if report.reason == Reason.PAIRING_EXPIRED and self._may_renew:
            self._may_renew = (
                False  # the command was given for codes; once they are used up it ends
            )
            await pod.renew()
            return Waiting("Waiting for a new code.")
        view = from_the_pod(self._name, report)
        if view is not None:
            return view
        self._may_renew = False
        found = await pod.offer()
        if found is None:
            return Waiting("Waiting for a new code.")
        offer, left = found
        return Code(offer, None if left is None else time.monotonic() + left)

    def _show(self, view: Waiting | Code) -> None:
        self._view = view
        columns, lines = self._screen.size()
        self._screen.draw(
            screen(self._name, view, columns, lines, time.monotonic(), colors=self._colors)
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._show(self._view)


class Terminal:
    """The terminal's other screen: what it shows is gone when the command ends, also from the scrollback."""

    def __init__(self, write: Callable[[str], None], size: Callable[[], tuple[int, int]]) -> None:
        self._write, self.size = write, size

    def __enter__(self) -> Terminal:
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("\x1b[2J\x1b[?25h\x1b[?1049l")

    def draw(self, lines: list[str]) -> None:
        self._write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
