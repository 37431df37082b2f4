"""The terminal cast of the documentation shows what the plugin prints today."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from unit.cli.cast import CODE, IMAGE, LINES, draw, scenes

MOVING = re.compile(r"\b\d+ ?s left\b|\b\d+[smh]\b|\d{4}-\d\d-\d\dT[\d:]+Z")


def text(picture: str) -> list[str]:
    """Return the text of each scene, without times."""
    svg = Xml.fromstring(picture)  # noqa: S314 -- our own file
    name = "{http://www.w3.org/2000/svg}"
    return [
        MOVING.sub("TIME", "\n".join(line.text or "" for line in scene.iter(f"{name}text")))
        for scene in svg.findall(f"{name}g")
    ]


def test_the_picture_is_current() -> None:
    """If not: `make cast`."""
    shown = list(scenes())
    assert text(IMAGE.read_text()) == text(draw(shown))
    assert all(len(scene.lines) <= LINES for scene in shown)
    last = shown[-1].lines
    assert "Session sales-eu is linked to 15551234567@c.us (Sales)." in last
    assert any("What to do: Nothing, it is ready." in line for line in last)
    assert CODE not in IMAGE.read_text()
