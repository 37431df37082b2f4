"""``make cast``: docs/images/kubectl-wasession.svg, of the plugin in a terminal.

The commands run in a pseudo-terminal, in front of the fake API server and session pod of these
tests. The picture is one animated SVG without scripts: each scene is shown for a while.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from support.terminal import LOWER, UPPER, Cell, Terminal
from unit.cli.conftest import Manifest, Server, make_session
from wasession_api.base import rfc3339

IMAGE = Path(__file__).parents[3] / "docs" / "images" / "kubectl-wasession.svg"
COLUMNS, LINES = 96, 38
WIDTH, HEIGHT, MARGIN = 8, 18, 16  # pixels of a character; around the screen
CODE = "2@" + ",".join(["Rm9yIHBpY3R1cmVzIG9ubHk" * 3, "a" * 44, "b" * 44, "c" * 44])
NAME, ME, FRIEND = "sales-eu", "15551234567@c.us", "15550001111"
STYLE = (
    "text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#e8eaed;"
    "white-space:pre}.prompt{fill:#80cbc4}.scene{visibility:hidden}"
)
LEAVE_SCREEN = b"\x1b[?1049l"  # what was on the alternate screen is gone then
Screen = Sequence[Sequence[Cell]]


class Scene(NamedTuple):
    """What a person sees for some seconds: what was typed and printed so far, or a whole screen."""

    seconds: float
    lines: Sequence[str] = ()
    screen: Screen = ()


def scenes() -> Iterator[Scene]:
    """Run the commands; return what they show."""
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(server.kubeconfig()))
        try:
            yield from _story(server, {"KUBECONFIG": str(kubeconfig)})
        finally:
            server.stop()


def _story(server: Server, environment: dict[str, str]) -> Iterator[Scene]:
    lines: list[str] = []

    def begin(*arguments: str) -> Terminal:
        shown = " ".join(f"'{part}'" if " " in part else part for part in arguments)
        lines.append(f"$ kubectl wasession {shown}")
        command = [sys.executable, "-m", "wasession_cli", *arguments]
        return Terminal(command, environment, COLUMNS, LINES)

    def end(terminal: Terminal) -> None:
        assert terminal.wait() == 0, terminal.text()
        printed = terminal.output.rpartition(LEAVE_SCREEN)[2].decode()
        for line in [*printed.replace("\r", "").rstrip().split("\n"), ""]:
            starts = range(0, max(len(line), 1), COLUMNS)
            lines.extend(line[start : start + COLUMNS] for start in starts)

    server.put(_session("Authenticating", "WaitingForScan"))
    soon = rfc3339(datetime.now(UTC) + timedelta(seconds=60))
    server.change_pod(lambda pod: pod.offer(CODE, expires_at=soon))
    with begin("list") as terminal:
        end(terminal)
    yield Scene(3, [*lines])
    with begin("qr", NAME) as terminal:
        yield Scene(1.5, [*lines])
        terminal.wait_qr(CODE)
        yield Scene(4, screen=terminal.cells())
        account = {"id": ME, "pushName": "Sales"}
        server.change_pod(lambda pod: pod.say("Ready", "Connected", account=account))
        end(terminal)
    server.put(_session("Ready", "Connected", account=account, sessionValid=True))
    yield Scene(3, [*lines])
    with begin("send", NAME, FRIEND, "Your order is ready.") as terminal:
        end(terminal)
    yield Scene(3, [*lines])
    with begin("status", NAME) as terminal:
        end(terminal)
    yield Scene(6, [*lines])


def _session(phase: str, reason: str, **status: Any) -> Manifest:
    """Return a session that has been so for some minutes."""
    since = rfc3339(datetime.now(UTC) - timedelta(minutes=12))
    ready = phase == "Ready"
    conditions = [
        {"type": "Ready", "status": str(ready), "reason": reason},
        {"type": "PodReady", "status": "True", "reason": "PodRunning"},
        {"type": "StorageReady", "status": "True", "reason": "VolumeBound"},
    ]
    status["conditions"] = [
        {**condition, "message": "", "lastTransitionTime": since} for condition in conditions
    ]
    return make_session(NAME, phase, **status)


# --- the picture ----------------------------------------------------------------------------------


def draw(shown: Sequence[Scene]) -> str:
    """Return the scenes as an animated SVG."""
    width, height = COLUMNS * WIDTH + 2 * MARGIN, LINES * HEIGHT + 2 * MARGIN
    total, start = sum(scene.seconds for scene in shown), 0.0
    style, parts = [STYLE], list[str]()
    for number, scene in enumerate(shown):
        # In a fraction of the whole; what is not animated shows the last scene.
        first, last = 100 * start / total, 100 * (start + scene.seconds) / total
        style.append(
            f"@keyframes s{number}{{0%{{visibility:{'visible' if first == 0 else 'hidden'}}}"
            f"{first:.2f}%{{visibility:visible}}{last:.2f}%,100%{{visibility:hidden}}}}"
            f"#s{number}{{animation:s{number} {total:g}s step-end infinite}}"
        )
        drawn = _screen(scene.screen) if scene.screen else _lines(scene.lines)
        parts.append(f'<g class="scene" id="s{number}">{"".join(drawn)}</g>')
        start += scene.seconds
    style.append(
        f"@media (prefers-reduced-motion:reduce){{.scene{{animation:none!important}}"
        f"#s{len(shown) - 1}{{visibility:visible}}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="kubectl wasession in a terminal"><style>{"".join(style)}</style>'
        '<rect width="100%" height="100%" rx="8" fill="#202124"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _lines(lines: Sequence[str]) -> Iterator[str]:
    """Draw what has scrolled into view, as a terminal does."""
    for row, line in enumerate(lines[-LINES:]):
        kind = ' class="prompt"' if line.startswith("$ ") else ""
        if line:
            yield f'<text x="{MARGIN}" y="{_top(row) + 14}"{kind}>{escape(line)}</text>'


def _screen(screen: Screen) -> Iterator[str]:
    """Draw a screen: half blocks as rectangles, since fonts leave gaps between them."""
    for row, cells in enumerate(screen):
        for half, blocks in enumerate((UPPER, LOWER)):
            colours = [cell.half(blocks) for cell in cells]
            column, paths = 0, dict[str, str]()
            for colour, run in groupby(colours):
                width = len(list(run)) * WIDTH
                x, y = MARGIN + column * WIDTH, _top(row) + half * HEIGHT // 2
                outline = f"M{x} {y}h{width}v{HEIGHT // 2}h-{width}z"
                paths[colour] = paths.get(colour, "") + outline
                column += width // WIDTH
            paths.pop("", None)
            for colour, outlines in paths.items():
                yield f'<path fill="#{colour}" shape-rendering="crispEdges" d="{outlines}"/>'
        text = "".join(" " if cell.text in UPPER + LOWER else cell.text for cell in cells).rstrip()
        if text:
            yield f'<text x="{MARGIN}" y="{_top(row) + 14}">{escape(text)}</text>'


def _top(row: int) -> int:
    return MARGIN + row * HEIGHT


if __name__ == "__main__":
    IMAGE.write_text(draw(list(scenes())))
