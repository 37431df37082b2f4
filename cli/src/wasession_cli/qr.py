"""QR codes for terminals. Pure."""

from __future__ import annotations

import segno

# Black on white in every theme: entries of the 256-color cube, which themes do not change.
COLORS = "\x1b[38;5;16;48;5;231m"
RESET = "\x1b[0m"
QUIET_ZONES = (4, 2, 1)  # modules; the standard requires four, phones accept one
BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}

Matrix = list[list[bool]]


def matrix(code: str) -> Matrix:
    """Return the modules of the QR code, True for dark, without a quiet zone."""
    return [[bool(module) for module in row] for row in segno.make_qr(code, error="l").matrix]


def quiet_zone(modules: int, columns: int, lines: int) -> int | None:
    """Return the widest quiet zone with which a QR code fits as half blocks, if any does."""
    for zone in QUIET_ZONES:
        size = modules + 2 * zone
        if size <= columns and (size + 1) // 2 <= lines:
            return zone
    return None


def half_blocks(code: Matrix, zone: int, *, colors: bool) -> list[str]:
    """Return the lines of half blocks; without ``colors`` the light modules are drawn.

    Uncolored text is usually light on a dark background.
    """
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
