"""The table of values in the chart's README, from the comments of values.yaml.

``python -m support.chart.reference`` writes it. As with helm-docs, a comment that begins with
``# --`` describes the value below it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml
from support.testbed import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values: make chart-readme -->\n", "<!-- end of values -->\n"
LONGEST = 60  # characters of a default that the table shows


class Row(NamedTuple):
    """A value, its default as YAML, and what its comment says; a group has no default."""

    path: str
    default: str | None
    description: str


def rows(text: str) -> list[Row]:
    """Return the rows of the table for the text of a values.yaml.

    A described map whose values are not described is one value: the user replaces it as a whole.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return list(_rows(node, text.splitlines(), ""))


def _rows(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Row]:
    for key, value in node.value:
        path, description = f"{prefix}{key.value}", _comment(lines, key.start_mark.line)
        within: list[Row] = []
        if isinstance(value, yaml.MappingNode):
            within = list(_rows(value, lines, f"{path}."))
        if within and (not description or any(row.description for row in within)):
            if description:
                yield Row(path, None, description)
            yield from within
        else:
            default = yaml.SafeLoader("").construct_document(value)
            yield Row(path, json.dumps(default, ensure_ascii=False), description)


def _comment(lines: list[str], line: int) -> str:
    """Return the comment above a line, from its last ``# --`` on."""
    words: list[str] = []
    for text in reversed(lines[:line]):
        comment = re.fullmatch(r"\s*# ?(-- )?(.*)", text)
        if comment is None:
            break
        words.insert(0, comment[2])
        if comment[1]:
            return " ".join(words)
    return ""


def table(text: str) -> str:
    """Return the table in Markdown."""
    lines = ["| value | default | description |", "| --- | --- | --- |"]
    for path, default, description in rows(text):
        shown = "" if default is None else f"`{default}`"
        if len(shown) > LONGEST:
            shown = "see values.yaml"
        description = description.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{path}` | {shown} | {description} |")
    return "\n".join(lines) + "\n"


def render(readme: str, values: str) -> str:
    """Return the README with the table of these values."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{README} lacks {END.strip()}"
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(render(README.read_text(), (CHART / "values.yaml").read_text()))
