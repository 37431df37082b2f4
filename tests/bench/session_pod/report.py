"""The results as a table beside the goals, and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench.measured import percentile
from bench.session_pod.contenders import SessionPod, WhatsAppWebJs
from bench.session_pod.results import Kill, Kills, Memory, Results, Starts, Tree

ROOT = Path(__file__).resolve().parents[3]
SVG = ROOT / "docs" / "benchmarks" / "session-pod.svg"
OURS, PEER = SessionPod.name, WhatsAppWebJs.name


@dataclass(frozen=True)
class Row:
    """One measurement of both contenders."""

    what: str
    unit: str
    ours: list[float]
    peer: list[float]
    goal: float | None = None  # at most this share of the peer's
    smaller_is_better: bool = True

    @property
    def share(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.peer)

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return f"≤ {self.goal:.0%}: {'reached' if self.share <= self.goal else 'not reached'}"


def rows(found: Results) -> list[Row]:
    made = []
    if start := found.start:
        made += _starts("", start)
        made += _memory("at ready", start.memory, goal=0.7)
    if heavy := found.heavy:
        made += _starts("heavy page: ", heavy)
        made += _memory("at ready, heavy page", heavy.memory)[:1]
    if messages := found.messages:
        made += _memory(f"after {messages.received + messages.sent} messages", messages.memory)
    if idle := found.idle:
        spent = {
            name: [sum(run.values()) for run in runs] for name, runs in idle.cpu_percent.items()
        }
        made.append(
            Row(f"CPU over {idle.seconds / 60:g} idle minutes", "%", spent[OURS], spent[PEER])
        )
    if send := found.send:
        for percent in (50, 99):
            ours, peer = (
                [percentile(values, percent)]
                for values in (send.milliseconds[OURS], send.milliseconds[PEER])
            )
            made.append(Row(f"sending a text, p{percent}", "ms", ours, peer))
    return made


def _starts(page: str, found: Starts) -> list[Row]:
    qr, ready = found.qr_seconds, found.ready_seconds
    return [
        Row(f"{page}start → QR", "s", qr[OURS], qr[PEER], goal=1),
        Row(f"{page}stored login → ready", "s", ready[OURS], ready[PEER], goal=1),
    ]


def _memory(when: str, memory: dict[str, list[Tree]], goal: float | None = None) -> list[Row]:
    def values(name: str, kind: str) -> list[float]:
        return [getattr(total(tree.values()), kind) for tree in memory[name]]

    return [
        Row(f"memory {when}: {words}", "MiB", values(OURS, kind), values(PEER, kind), goal)
        for kind, words in (("private", "anonymous + shared"), ("pss", "PSS"), ("rss", "RSS"))
    ]


def total(memories: Iterable[Memory]) -> Memory:
    return sum(memories, Memory(private=0, pss=0, rss=0))


def survival(kills: list[Kill]) -> str:
    lived = sum(kill.outcome != "qr" for kill in kills)
    return f"{lived}/{len(kills)}"


def table(found: Results) -> str:
    """Markdown."""
    lines = [
        f"| | {OURS} | {PEER} | share | goal |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.what} | {_span(row.ours, row.unit)} | {_span(row.peer, row.unit)} "
        f"| {row.share:.0%} | {row.verdict} |"
        for row in rows(found)
    ]
    if kill := found.kill:
        ours, peer = kill.kills[OURS], kill.kills[PEER]
        verdict = (
            f"all: {'reached' if all(one.outcome == 'ready' for one in ours) else 'not reached'}"
        )
        lines.append(
            f"| logins that survived SIGKILL 0 to 60 s after ready | {survival(ours)} "
            f"| {survival(peer)} | | {verdict} |"
        )
    lines += ["", "; ".join(f"{name} {value}" for name, value in found.conditions.items())]
    return "\n".join(lines)


def _span(values: list[float], unit: str) -> str:
    middle = f"{_number(statistics.median(values))} {unit}"
    return (
        middle
        if len(values) == 1
        else f"{middle} ({_number(min(values))} to {_number(max(values))})"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# --- the picture ----------------------------------------------------------------------------------

WIDTH, LABEL, BAR, GAP = 860, 300, 15, 14
COLOURS = {OURS: "#1a7f64", PEER: "#9aa0a6"}

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#202124}.small{font-size:11px}"
    ".goal{stroke:#c5221f;stroke-width:1.5;stroke-dasharray:3 2}"
)


def picture(found: Results) -> str:
    """Draw bars, the peer's with the same length in each row; a line marks a goal."""
    parts, y = [], 44
    shown = rows(found)
    scale = (WIDTH - LABEL - 130) / max([1.0, *(row.share for row in shown)])
    for row in shown:
        parts += _bars(row, y, scale)
        y += 2 * BAR + GAP
    if found.kill:
        parts += _kills(found.kill, y)
        y += 2 * BAR + GAP
    legend = "".join(
        f'<rect x="{x}" y="14" width="12" height="12" fill="{COLOURS[name]}"/>'
        f'<text x="{x + 18}" y="24">{name}</text>'
        for x, name in ((LABEL, OURS), (LABEL + 120, PEER))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 22}" role="img" '
        f'aria-label="The session pod beside whatsapp-web.js"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{legend}'
        f'<text x="{LABEL + 270}" y="24" class="small">dashed: goal; hollow: login lost</text>'
        + "\n".join(parts)
        + f'<text x="12" y="{y + 10}" class="small">Medians. Shorter is better.</text></svg>\n'
    )


def _bars(row: Row, y: int, scale: float) -> list[str]:
    parts = [
        f'<text x="{LABEL - 10}" y="{y + BAR + 4}" text-anchor="end">{escape(row.what)}</text>'
    ]
    both = ((OURS, row.share, row.ours), (PEER, 1.0, row.peer))
    for offset, (name, share, values) in enumerate(both):
        top, length = y + offset * BAR, share * scale
        median = f"{_number(statistics.median(values))} {row.unit}"
        parts.append(
            f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR - 2}" '
            f'fill="{COLOURS[name]}"/>'
        )
        parts.append(
            f'<text x="{LABEL + length + 6:.1f}" y="{top + 11}" class="small">'
            f"{escape(median)}</text>"
        )
    if row.goal is not None:
        x = LABEL + row.goal * scale
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + 2 * BAR + 1}" class="goal"/>'
        )
    return parts


def _kills(kill: Kills, y: int) -> list[str]:
    parts = [
        f'<text x="{LABEL - 10}" y="{y + BAR + 4}" text-anchor="end">'
        "SIGKILL, seconds after ready</text>"
    ]
    for offset, name in enumerate((OURS, PEER)):
        middle = y + offset * BAR + BAR / 2
        for one in kill.kills[name]:
            x = LABEL + 5 + one.after / 60 * (WIDTH - LABEL - 135)
            hollow = 'fill="none" stroke="#c5221f" stroke-width="1.5"'
            look = hollow if one.outcome == "qr" else f'fill="{COLOURS[name]}"'
            parts.append(f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" {look}/>')
        parts.append(
            f'<text x="{WIDTH - 118}" y="{middle + 4:.1f}" class="small">'
            f"{survival(kill.kills[name])} survived</text>"
        )
    return parts
