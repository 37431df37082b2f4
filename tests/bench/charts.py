"""Charts in SVG: panels of rows along an axis, on a white ground for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple, Protocol

WIDTH, LEFT, RIGHT, ROW, MARGIN = 860, 230, 150, 22, 12  # pixels
BAR, DOT = 12, 4
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#202124}.small{font-size:11px}.bold{font-weight:bold}"
    ".value{paint-order:stroke;stroke:#fff;stroke-width:4px}.grid{stroke:#dadce0}"
    ".goal{stroke:#c5221f;stroke-width:1.5;stroke-dasharray:4 3}"
)
Place = Callable[[float], float]


class Axis(NamedTuple):
    """``ticks`` are values with their labels; the first and the last one are its ends."""

    label: str
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        first, last, at = self.ticks[0][0], self.ticks[-1][0], value
        if self.logarithmic:
            first, last, at = math.log(first), math.log(last), math.log(max(value, first))
        return LEFT + (at - first) / (last - first) * (WIDTH - LEFT - RIGHT)


class Mark(Protocol):
    """What a row shows at its values."""

    @property
    def least(self) -> float: ...

    @property
    def most(self) -> float: ...

    def draw(self, place: Place, y: float, colour: str) -> list[str]: ...


class Bar(NamedTuple):
    most: float
    least: float = 0.0

    def draw(self, place: Place, y: float, colour: str) -> list[str]:
        left = place(self.least)
        return [
            f'<rect x="{left:.1f}" y="{y - BAR / 2:.1f}" width="{place(self.most) - left:.1f}" '
            f'height="{BAR}" fill="{colour}"/>'
        ]


class Range(NamedTuple):
    """A dot at the least value, the 50th percentile, and a line to the most, the 99th."""

    least: float
    most: float

    def draw(self, place: Place, y: float, colour: str) -> list[str]:
        x, end = place(self.least), place(self.most)
        return [
            f'<line x1="{x:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
            f'stroke-width="3"/>',
            f'<line x1="{end:.1f}" x2="{end:.1f}" y1="{y - DOT:.1f}" y2="{y + DOT:.1f}" '
            f'stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" fill="{colour}"/>',
        ]


class Dots(NamedTuple):
    """A dot for each value."""

    values: Sequence[float]

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)

    def draw(self, place: Place, y: float, colour: str) -> list[str]:
        return [
            f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="{DOT}" fill="{colour}" '
            f'fill-opacity="0.4"/>'
            for value in self.values
        ]


class Row(NamedTuple):
    label: str
    mark: Mark
    text: str  # the values in words
    colour: str


class Panel(NamedTuple):
    """Rows along one axis; ``goals`` are values of it with their labels."""

    title: str
    axis: Axis
    rows: Sequence[Row]
    goals: Sequence[tuple[float, str]] = ()


def linear(label: str, most: float) -> Axis:
    """Return an axis from 0 to at least ``most``, with about five round ticks."""
    raw = max(most, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    ticks = [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]
    return Axis(label, [(tick, f"{tick:g}") for tick in ticks])


def logarithmic(label: str, least: float, most: float) -> Axis:
    """Return an axis with a tick at each power of ten, from at most ``least`` on."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    powers = range(first, max(last, first + 1) + 1)
    return Axis(label, [(10.0**power, f"{10.0**power:,g}") for power in powers], logarithmic=True)


def draw(description: str, panels: Sequence[Panel], caption: str) -> str:
    """Return the picture of panels, one below the other."""
    parts, top = list[str](), float(MARGIN)
    for panel in panels:
        drawn, top = _panel(panel, top)
        parts += drawn
    height = top + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(description)}"><style>{STYLE}</style>'
        '<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join([*parts, _text(MARGIN, height - MARGIN, caption, "small")])
        + "</svg>\n"
    )


def _panel(panel: Panel, top: float) -> tuple[list[str], float]:
    """Return a panel's parts, and where the next one begins."""
    place = panel.axis.place
    first = top + 2 * ROW
    bottom = first + len(panel.rows) * ROW
    parts = [_text(MARGIN, top + ROW / 2, panel.title, "bold")]
    for value, label in panel.axis.ticks:
        parts.append(_vertical(place(value), first, bottom, "grid"))
        parts.append(_text(place(value), bottom + 15, label, "small", "middle"))
    parts.append(_text(WIDTH - RIGHT + 30, bottom + 15, panel.axis.label, "small"))
    for value, label in panel.goals:
        parts.append(_vertical(place(value), first - 4, bottom, "goal"))
        parts.append(_text(place(value), first - 8, label, "small", "middle"))
    for number, row in enumerate(panel.rows):
        y = first + (number + 0.5) * ROW
        parts.append(_text(LEFT - 10, y + 4, row.label, anchor="end"))
        parts += row.mark.draw(place, y, row.colour)
        parts.append(_text(place(row.mark.most) + 9, y + 4, row.text, "small value"))
    return parts, bottom + 2 * ROW


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">'
        f"{escape(text)}</text>"
    )


def _vertical(x: float, top: float, bottom: float, style: str) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class="{style}"/>'
