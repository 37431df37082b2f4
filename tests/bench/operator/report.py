"""The results as a page with a picture: ``docs/benchmarks/operator.md``, beside its numbers."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "benchmarks" / "operator.md"
RESULTS = PAGE.with_suffix(".json")
PICTURE = PAGE.with_suffix(".svg")
Found = dict[str, Any]
OTHER_WORK = 10  # percent of the machine's CPU, before anything is started
WIDTH, LABEL, BAR = 760, 250, 18
OURS, PEER, OTHER = "#1a73e8", "#9aa0a6", "#dadce0"


def keep(sessions: int, found: Found) -> None:
    """Replace the results of an earlier run of this size."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[str(sessions)] = found
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps(dict(sorted(known.items(), key=lambda item: int(item[0]))), indent=1) + "\n"
    )


def write() -> None:
    """Write page and picture from the saved results."""
    runs: dict[str, Found] = json.loads(RESULTS.read_text())
    compared = next(run for run in reversed(runs.values()) if "statefulsets" in run)
    PICTURE.write_text(picture(compared))
    PAGE.write_text(page(list(runs.values()), compared))


def page(runs: list[Found], compared: Found) -> str:
    machine = compared["machine"]
    lines = [
        "# The operator, measured",
        "",
        f"Kubernetes {machine['kubernetes']} (etcd, kube-apiserver, kube-controller-manager, "
        "kube-scheduler), nodes of kwok,",
        f"the operator and the load all on one machine with {machine['cores']} cores and "
        f"{machine['memoryGiB']} GiB, Python",
        f"{machine['python']}. The session pods are fakes: kwok makes them Ready at once, and one "
        "server answers for all of",
        "them. So this is what the operator and the API server do, not what Chromium does. All "
        "times and counts of writes are",
        "from the API server's audit log.",
        *busy(machine),
        "",
        "The peer is Kubernetes' own StatefulSet controller, in the same run on the same cluster, "
        "with the same pod and claim.",
        "It does less: no token for each session, no status of what runs in the pod. The rate is "
        "more than the machine can do,",
        "API server and all: who keeps up makes the pods first, and what is left to do takes until "
        "all sessions are Ready.",
        "",
        "![CR to pod, pod to pod](operator.svg)",
        "",
        f"## {compared['sessions']} sessions, {compared['rate']:g} a second",
        "",
        "| | wasession | a StatefulSet for each | one StatefulSet | goal |",
        "| --- | --- | --- | --- | --- |",
        *rows(compared),
        "",
        "## Size",
        "",
        "The same for more of them, applied at the same rate.",
        "",
        "| sessions | applied → pod | deleted → next pod | memory | after a restart "
        "| CPU of a restart, until all are known | idle |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(size_row(run) for run in runs),
        "",
        "The goals: 300 MB and 30 s of CPU at 5000 sessions, nothing written while idle or at a "
        "restart.",
        f"The process has {compared['operator']['memoryEmptyMiB']:.0f} MiB before the first "
        "session.",
        "",
        "`make bench-operator` measures again; the numbers are in [operator.json](operator.json).",
    ]
    return "\n".join(lines) + "\n"


def busy(machine: Found) -> list[str]:
    """Return a warning if the machine had other work."""
    if machine["cpuPercentBefore"] < OTHER_WORK:
        return []
    return [
        "",
        f"**The machine had other work at the time: {machine['cpuPercentBefore']:.0f} % of its "
        "CPU.** The counts of writes and the memory are what they are; the times are only good to "
        "compare the columns.",
    ]


def rows(run: Found) -> list[str]:
    ours, each, one = run["operator"], run["statefulsets"], run["statefulset"]
    return [
        f"| applied → pod created, p50 / p99 | {times(ours['appliedToPodMs'])} "
        f"| {times(each['appliedToPodMs'])} | {one['podsPerSecond']:.0f} pods/s | 100 / 500 ms |",
        f"| pod deleted → next pod created, p50 / p99 | {times(ours['deletedToPodMs'])} "
        f"| {times(each['deletedToPodMs'])} | {times(one['deletedToPodMs'])} | 100 ms |",
        f"| all Ready after | {ours['readyAfter']:.0f} s | {each['readyAfter']:.0f} s | | |",
        f"| writes from the CR to Ready | {ours['writesPerSession']['all']:.1f} "
        f"| {each['writesPerSession']['all']:.1f} | {one['writesPerSession']['all']:.1f} | 6 |",
        f"| writes of a removal | {ours['writesPerRemoval']['all']:.1f} | | | |",
        f"| CPU of the operator from the CR to Ready | {ours['cpuMsPerSession']:.0f} ms | | | |",
    ]


def size_row(run: Found) -> str:
    ours = run["operator"]
    restart, idle = ours["restart"], ours["idle"]
    return (
        f"| {run['sessions']} | {times(ours['appliedToPodMs'])} | {times(ours['deletedToPodMs'])} "
        f"| {ours['memoryMiB']:.0f} MiB | {restart['memoryMiB']:.0f} MiB "
        f"| {restart['cpuSeconds']:.1f} s, {restart['writes']} writes "
        f"| {idle['writes']} writes in {idle['seconds']:g} s, "
        f"{idle['cpuPercent']:.1f} % of a core |"
    )


def times(found: Found) -> str:
    """Return the 50th and the 99th percentile."""
    return f"{found['p50']:.0f} / {found['p99']:.0f} ms"


def picture(run: Found) -> str:
    """Draw bars of milliseconds up to the 50th percentile, with a thin line to the 99th."""
    groups = [
        ("applied → pod created", "appliedToPodMs"),
        ("pod deleted → next pod created", "deletedToPodMs"),
    ]
    contenders = [("wasession", "operator", OURS), ("a StatefulSet for each", "statefulsets", PEER)]
    contenders.append(("one StatefulSet", "statefulset", OTHER))
    bars = [
        (group, name, run[key][measure], colour)
        for group, measure in groups
        for name, key, colour in contenders
        if measure in run[key]
    ]
    scale = (WIDTH - LABEL - 90) / max(found["p99"] for _, _, found, _ in bars)
    parts, y, last = [], 16, ""
    for group, name, found, colour in bars:
        if group != last:
            parts.append(f'<text x="12" y="{y + 14}" font-weight="bold">{escape(group)}</text>')
            y, last = y + 24, group
        middle, p50, p99 = (
            y + BAR / 2 - 2,
            LABEL + found["p50"] * scale,
            LABEL + found["p99"] * scale,
        )
        parts.append(f'<text x="{LABEL - 10}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{LABEL}" y="{y}" width="{p50 - LABEL:.1f}" height="{BAR - 4}" '
            f'fill="{colour}"/>'
        )
        parts.append(
            f'<line x1="{p50:.1f}" x2="{p99:.1f}" y1="{middle}" y2="{middle}" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{p99 + 6:.1f}" y="{y + 12}">{times(found)}</text>')
        y += BAR + 4
        if name == contenders[-1][0] or (group, name) == (groups[0][0], contenders[1][0]):
            y += 8
    style = "text{font:13px system-ui,sans-serif;fill:#202124}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" role="img" '
        f'aria-label="Milliseconds of wasession and of StatefulSets"><style>{style}</style>'
        '<rect width="100%" height="100%" fill="#fff"/>'
        + "\n".join(parts)
        + f'<text x="12" y="{y + 10}">{run["sessions"]} sessions, {run["rate"]:g} a second. '
        "Bar: p50; line: p99.</text></svg>\n"
    )
