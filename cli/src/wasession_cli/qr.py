"""A QR in a terminal: pure."""

from __future__ import annotations

import segno

# Black on white whatever the terminal's theme: entries of the 256-color cube, which themes leave
# alone.
COLORS = "\x1b[38;5;16;48;5;231m"
RESET = "\x1b[0m"
QUIET_ZONES = (4, 2, 1)  # modules; four is the standard's, phones read one as well
BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}

Matrix = list[list[bool]]


def matrix(code: str) -> Matrix:
    """The QR's modules, True where dark, without a quiet zone."""
    return [[bool(module) for module in row] for row in segno.make_qr(code, error="l").matrix]


def quiet_zone(modules: int, columns: int, lines: int) -> int | None:
    """The widest quiet zone with which a QR of so many modules fits, two of them a line; None when none does."""
    for zone in QUIET_ZONES:
        size = modules + 2 * zone
        if size <= columns and (size + 1) // 2 <= lines:
            return zone
    return None


def half_blocks(code: Matrix, zone: int, *, colors: bool) -> list[str]:
    """Lines of half blocks. Without ``colors`` the light modules are the ones drawn, for light text on a dark ground."""
    width = len(code) + 2 * zone
    blank = [[False] * width] * zone
    rows = [*blank, *([False] * zone + row + [False] * zone for row in code), *blank]
    if len(rows) % 2:
        rows.append([False] * width)
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        text = "".join(
            BLOCKS[(up == colors, low == colors)] for up, low in zip(upper, lower, strict=True)
        )
        lines.append(f"{COLORS}{text}{RESET}" if colors else text)
    return lines
