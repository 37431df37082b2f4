"""QR codes as half blocks."""

from __future__ import annotations

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st
from wasession_cli import qr

MODULES = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
PRINTABLE = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=400
)


@given(PRINTABLE, st.sampled_from([1, 2, 4]), st.booleans())
def test_half_blocks_are_the_modules(code: str, zone: int, colors: bool) -> None:
    lines = [
        line.removeprefix(qr.COLORS).removesuffix(qr.RESET)
        for line in qr.half_blocks(qr.matrix(code), zone, colors=colors)
    ]
    rows = [
        [MODULES[character][half] == colors for character in line]
        for line in lines
        for half in (0, 1)
    ]
    expected = [
        [bool(module) for module in row]
        for row in segno.make_qr(code, error="l").matrix_iter(border=zone)
    ]
    assert rows[: len(expected)] == expected
    assert not any(any(row) for row in rows[len(expected) :]), "a last half line is light"


@pytest.mark.parametrize(
    ("columns", "lines", "zone"),
    [
        (100, 50, 4),
        (65, 33, 4),
        (64, 50, 2),
        (100, 32, 2),
        (61, 31, 2),
        (59, 30, 1),
        (58, 50, None),
        (100, 29, None),
    ],
)
def test_the_widest_quiet_zone_that_fits(columns: int, lines: int, zone: int | None) -> None:
    assert qr.quiet_zone(57, columns, lines) == zone
