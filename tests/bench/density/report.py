"""The results as a table and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from bench.charts import Bar, Panel, Row, draw, linear
from bench.density.results import SLOW, SWAPS, Results, Round, Run, Swap
from bench.session_pod.contenders import SessionPod, WhatsAppWebJs

ROOT = Path(__file__).resolve().parents[3]
SVG = ROOT / "docs" / "benchmarks" / "density.svg"
COLOURS = {SessionPod.name: "#1a7f64", WhatsAppWebJs.name: "#9aa0a6"}
SWAP_NAMES: dict[Swap, str] = {"none": "no swap", "file": "swap file", "zswap": "zswap"}


class Node(NamedTuple):
    limit_mib: int
    modules: int
    swap: Swap

    @property
    def page(self) -> str:
        weight = f"{self.modules:,} modules" if self.modules else "the stand-in's own page"
        return f"{self.limit_mib / 1024:.3g} GiB, {weight}"


def nodes(found: Results) -> dict[Node, dict[str, list[Run]]]:
    """Return the runs of each contender, by the nodes that they were on."""
    made: dict[Node, dict[str, list[Run]]] = {}
    for run in found.runs:
        node = Node(run.limit_mib, run.modules, run.swap)
        made.setdefault(node, {}).setdefault(run.contender, []).append(run)
    return dict(sorted(made.items(), key=lambda item: (*item[0][:2], SWAPS.index(item[0].swap))))


# --- the table ------------------------------------------------------------------------------------

HEAD = (
    "RAM and page",
    "swap",
    "contender",
    "sessions",
    "MiB of one",
    "of it swapped",
    "text → answer, p50 / p95 ms",
    "with half as many",
    "major faults of an answer",
    "ended by",
)


def table(found: Results) -> str:
    """Markdown; medians of the runs, and the span of the numbers of sessions."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for node, contenders in nodes(found).items():
        lines += [_line(cells(node, name, runs)) for name, runs in contenders.items()]
    lines += ["", "; ".join(f"{name} {value}" for name, value in found.conditions.items())]
    return "\n".join(lines)


def cells(node: Node, contender: str, runs: list[Run]) -> list[str]:
    fullest = [run.last_good for run in runs if run.last_good]
    halves = [run.rounds[(run.sessions - 1) // 2] for run in runs if run.last_good]
    return [
        node.page,
        SWAP_NAMES[node.swap],
        contender,
        _span([run.sessions for run in runs]),
        _median(fullest, lambda each: each.usage.private / each.sessions, "{:.0f}"),
        _median(fullest, lambda each: 100 * each.usage.swapped / each.usage.private, "{:.0f} %"),
        _latency(fullest),
        _latency(halves),
        _median(fullest, lambda each: each.faults.major / each.sessions, "{:.0f}"),
        ", ".join(sorted({run.end for run in runs})),
    ]


def _latency(rounds: list[Round]) -> str:
    p50 = _median(rounds, lambda each: each.p50, "{:.0f}")
    p95 = _median(rounds, lambda each: each.p95, "{:.0f}")
    return f"{p50} / {p95}"


def _median(rounds: list[Round], value: Callable[[Round], float], form: str) -> str:
    return form.format(statistics.median(map(value, rounds))) if rounds else "-"


def _span(counts: list[int]) -> str:
    middle = f"{statistics.median(counts):g}"
    return middle if len(counts) == 1 else f"{middle} ({min(counts)} to {max(counts)})"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- the picture ----------------------------------------------------------------------------------


def picture(found: Results) -> str:
    """Draw a bar for the sessions of each contender on each node, a panel for each page."""
    most = max((run.sessions for run in found.runs), default=1)
    axis = linear("sessions", most)
    pages: dict[str, list[Row]] = {}
    for node, contenders in nodes(found).items():
        pages.setdefault(node.page, []).extend(
            _row(f"{SWAP_NAMES[node.swap]}: {name}", [run.sessions for run in runs], COLOURS[name])
            for name, runs in contenders.items()
        )
    return draw(
        "How many sessions a node holds",
        [Panel(page, axis, rows) for page, rows in pages.items()],
        f"The most sessions of which 95 % answer a text within {SLOW / 1000:g} s.",
    )


def _row(label: str, counts: list[int], colour: str) -> Row:
    return Row(label, Bar(statistics.median(counts)), _span(counts), colour)
