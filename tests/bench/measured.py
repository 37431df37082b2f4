"""What the benchmarks share: percentiles, and the conditions of a run."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version


def percentile(values: Sequence[float], percent: int) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def conditions(*packages: str) -> dict[str, str]:
    """Return versions and machine."""
    load = f"load average {os.getloadavg()[0]:.1f} before"
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, Linux {kernel}, {load}",
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
