"""Release notes of conventional commits (https://www.conventionalcommits.org): pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

SUBJECT = re.compile(
    r"(?P<kind>[a-z]+)(?:\((?P<scope>[^)]*)\))?(?P<breaking>!)?: (?P<text>.+)", re.ASCII
)
BREAKING = re.compile(r"^BREAKING[ -]CHANGE: (?P<text>.+)$", re.MULTILINE)
# What users notice, in this order. Other kinds, such as test and refactor, are not listed.
HEADINGS = {"feat": "Added", "fix": "Fixed", "perf": "Faster", "security": "Security"}


def notes(version: str, messages: Iterable[str]) -> str:
    """Return Markdown about commits, given their messages, the latest first."""
    sections: dict[str, list[str]] = {name: [] for name in ("Changed", *HEADINGS.values())}
    for message in messages:
        subject, _, body = message.partition("\n")
        found = SUBJECT.fullmatch(subject)
        if found is None:
            continue
        scope = f"{found['scope']}: " if found["scope"] else ""
        breaking = BREAKING.search(body)
        if breaking is not None:
            sections["Changed"].append(f"{scope}{breaking['text']}")
        elif found["breaking"]:
            sections["Changed"].append(f"{scope}{found['text']}")
        if heading := HEADINGS.get(found["kind"]):
            sections[heading].append(f"{scope}{found['text']}")
    lines = [f"# wasession {version}"]
    for heading, entries in sections.items():
        if entries:
            lines += ["", f"## {heading}", "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"
