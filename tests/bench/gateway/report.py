"""The results as tables beside the goals: pure."""

from __future__ import annotations

from bench.gateway.results import Lists, Load, Quantiles, Results, Told

GOAL = 50.0  # milliseconds that the 99th percentile of a list may take


def table(found: Results) -> str:
    """Markdown."""
    lines = list[str]()
    if found.lists is not None:
        lines += lists(found.lists)
    if found.told:
        lines += ["", *told(found.told)]
    return "\n".join(
        [*lines, "", "; ".join(f"{name} {value}" for name, value in found.conditions.items())]
    )


def lists(found: Lists) -> list[str]:
    connections = [load.connections for load in next(iter(found.loads.values()))]
    header = " | ".join(f"{number} at a time" for number in connections)
    return [
        f"| p50 / p99 ms, answers a second | bytes | {header} | p99 ≤ {GOAL:.0f} ms |",
        "| --- | --- |" + " --- |" * len(connections) + " --- |",
        *(
            f"| {what} | {loads[0].bytes} | {' | '.join(map(_load, loads))} | {verdict(loads)} |"
            for what, loads in found.loads.items()
        ),
        "",
        f"{found.sessions} sessions; {found.requests} lists, {found.api_calls} calls to the API "
        f"server meanwhile beside the watch; {found.memory_mib:.0f} MiB.",
    ]


def verdict(loads: list[Load]) -> str:
    """Return whether the goal is reached, or the numbers of connections with which it is not."""
    missed = [str(load.connections) for load in loads if load.milliseconds.p99 > GOAL]
    return f"not with {', '.join(missed)}" if missed else "reached"


def told(found: dict[str, list[Told]]) -> list[str]:
    rows = [
        f"| {server} | {run.clients} in {run.sessions} | {_times(run.milliseconds)} "
        f"| {run.kib_per_client:.1f} KiB | {run.cpu_microseconds:.0f} µs "
        f"| {run.idle_cpu_percent:.1f} % | {run.joined_seconds:.1f} s |"
        for server, runs in found.items()
        for run in runs
    ]
    return [
        "| | clients in sessions | change → client, p50 / p99 ms | memory of one | CPU to tell one "
        "| idle CPU | all joined |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]


def _load(load: Load) -> str:
    return f"{_times(load.milliseconds)}, {load.per_second:.0f}/s"


def _times(found: Quantiles) -> str:
    return f"{_number(found.p50)} / {_number(found.p99)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
