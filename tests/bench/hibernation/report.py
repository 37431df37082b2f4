"""The results as a page with a picture: ``docs/benchmarks/hibernation.md``, beside its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.charts import Bar, Dots, Panel, Row, draw, linear
from bench.hibernation.load import AFTER_IDLE
from bench.hibernation.results import NAME, Run, Sample, Wake, mean
from bench.hibernation.usage import MACHINE, SESSIONS
from bench.measured import percentile, table

GOAL = 8.0  # seconds that the 50th percentile from a text to its answer may take
MEASURED, COMPUTED = "#1a73e8", "#9aa0a6"
COMPONENTS = ("operator", "gateway", "standin")
TITLES = {
    "operator": "the operator",
    "gateway": "the gateway",
    "standin": "the stand-in",
    SESSIONS: "all session pods",
    MACHINE: "the whole machine",
}


def write(directory: Path, found: Run | None) -> None:
    """Write the page, and the picture if anything was measured."""
    (directory / NAME).with_suffix(".md").write_text("\n".join(page(found)) + "\n")
    if found is not None and found.steady:
        (directory / NAME).with_suffix(".svg").write_text(picture(found))


def page(found: Run | None) -> Iterator[str]:
    yield from (
        "# Hibernation, measured",
        "",
        "`make bench-hibernation` writes this page. It runs real session pods with Chromium on the",
        "embedded Kubernetes cluster of the tests, against the stand-in for WhatsApp Web. The",
        f"sessions' class has `hibernation.afterIdle: {AFTER_IDLE / 60:g}m`, the least that there",
        "is. Each session is linked by a phone and falls asleep. Then an application sends texts",
        "through the gateway to random sessions that sleep, at the rate that keeps about a tenth",
        "of all awake (`--awake`).",
        "",
    )
    if found is None:
        yield "Nothing has been measured yet."
        return
    yield from summary(found)
    yield from uses(found)
    yield from how(found)


def summary(found: Run) -> Iterator[str]:
    if not found.finished:
        yield from ("**The run was not finished.** These are its results until then.", "")
    if found.steady:
        yield from ("![From a text to its answer; memory](hibernation.svg)", "")
    yield from table(["", "measured", "goal"], rows(found))
    yield from failures(found)


def rows(found: Run) -> Iterator[list[str]]:
    steady, wakes = found.steady, found.wakes
    yield ["sessions that were linked", f"{found.linked} of {found.sessions}", "all"]
    yield ["texts to sleeping sessions", f"{len(wakes)}", ""]
    good = sum(wake.good for wake in wakes)
    yield ["answered, delivered once, and logged in without a QR", f"{good} of {len(wakes)}", "all"]
    yield ["… answered", f"{sum(wake.answered for wake in wakes)}", ""]
    yield ["… delivered once", f"{sum(wake.delivered for wake in wakes)}", ""]
    yield ["… logged in without a QR", f"{sum(wake.restored for wake in wakes)}", ""]
    yield ["text → answer, p50 / p99 / most", latency(wakes), goal(wakes)]
    yield ["session pods, on average / most", span([sample.pods for sample in steady]), ""]
    memory = [sample.sessions_mib for sample in steady]
    yield ["memory of all session pods, on average / most", span(memory, " MiB"), ""]
    yield ["memory of a session that is awake", mebibytes(found.awake_mib), ""]
    yield [
        f"*computed*: memory of {found.sessions} sessions that are always awake",
        mebibytes(found.always_awake_mib),
        "",
    ]
    yield ["share of that which was needed", share(found), ""]
    checked = f"{sum(wake.good for wake in found.checks)} of {len(found.checks)}"
    yield ["woken once more at the end, without a QR", checked, "all"]
    yield ["logged out at the end", f"{len(found.logged_out)}" if found.finished else "-", "0"]
    sizes = found.volumes_mib
    yield ["on a session's volume, p50 / most", _volumes(sizes), ""]
    yield ["… on all volumes", f"{sum(sizes):,.0f} MiB" if sizes else "-", ""]


def failures(found: Run) -> Iterator[str]:
    """Say what was wrong with texts and sessions that did not go well."""
    texts = Counter(_problem(wake) for wake in [*found.wakes, *found.checks] if not wake.good)
    links = Counter(link.problem for link in found.links if link.seconds is None)
    if texts or links or found.nobody_slept:
        yield from ("", "What went wrong:", "")
    yield from (f"- {problem}: {number} of the texts" for problem, number in texts.items())
    yield from (f"- {problem}: {number} of the sessions" for problem, number in links.items())
    if found.nobody_slept:
        yield f"- not sent, as no session slept: {found.nobody_slept} of the texts"


def uses(found: Run) -> Iterator[str]:
    if not found.steady:
        return
    yield from ("", "## What it uses", "")
    yield from table(["", "memory", "CPU, cores"], used(found.steady))
    texts = sum(found.ramp <= wake.at for wake in found.wakes)
    writes = Counter[str]()
    for sample in found.steady:
        writes.update(sample.writes)
    seconds = sum(sample.interval for sample in found.steady)
    leases = sum(sample.lease_writes for sample in found.steady)
    kinds = ", ".join(f"{number} {kind}" for kind, number in writes.most_common())
    yield from (
        "",
        f"Operator and gateway have written {sum(writes.values()):,} times to the API server while",
        f"{texts} texts were sent, without Events and Leases ({kinds}), and",
        f"{leases / seconds:.1f} times a second to Leases.",
    )


def used(steady: Sequence[Sample]) -> Iterator[list[str]]:
    for name in (SESSIONS, *COMPONENTS, MACHINE):
        memory = (
            mean([sample.sessions_mib for sample in steady])
            if name == SESSIONS
            else mean([s.others_mib[name] for s in steady if name in s.others_mib])
        )
        seconds = sum(sample.cpu_seconds.get(name, 0) for sample in steady)
        cores = seconds / sum(sample.interval for sample in steady)
        yield [TITLES[name], "" if name == MACHINE else mebibytes(memory), f"{cores:.2f}"]


def how(found: Run) -> Iterator[str]:
    yield from (
        "",
        "## How it was measured",
        "",
        f"- {found.sessions} sessions, about {found.awake} of them awake: a text every",
        f"  {found.interval:.1f} s for {found.minutes:g} minutes, and {found.ramp:.0f} s before",
        "  them, in which the number of sessions that are awake rises. The texts of that time",
        "  count; its memory, CPU and writes do not.",
        "- The time is from the request to the end of its answer, of texts that were answered with",
        "  success; the others are listed. It includes waking, sending, and a `kubectl",
        "  port-forward` to the gateway's Service. The gateway gives up after 60 s.",
        "- Delivered: the stand-in has the text from the session's account once. Without a QR: the",
        "  session is Ready again, one restoration more, and has not asked for a phone.",
        "- Memory is anonymous and shared memory (shmem, memfd) of the pods' control groups, every",
        "  10 s; cached files, Chromium's executable among them, are not counted. That of a",
        "  session that is awake is an average over all pods whose session is Ready.",
        f"- What {found.sessions} sessions would need if none slept is **computed**: that average,",
        "  times their number. It is rather too low: a session that is awake for days has more.",
        "- Operator, gateway and stand-in have the replicas of the chart and of the manifest,",
        "  counted together. Session pods ask for little CPU: the nodes share one machine's cores.",
        "- Logged out: the phone does not list the device any more with which the session was",
        "  linked. A tenth of all sessions, those first that have slept all the time, get one more",
        "  text at the end. Volumes have no limit here; their size is what is on the disk.",
        "- The stand-in's page is small: the real one takes more memory, and longer to start.",
        "",
        f"Conditions: {'; '.join(f'{k} {v}' for k, v in found.conditions.items())}; seed "
        f"{found.seed}.",
    )


# --- parts ----------------------------------------------------------------------------------------


def answered(wakes: Sequence[Wake]) -> list[float]:
    return [wake.seconds for wake in wakes if wake.answered]


def latency(wakes: Sequence[Wake]) -> str:
    seconds = answered(wakes)
    if not seconds:
        return "-"
    p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
    return f"{p50:.1f} / {p99:.1f} / {max(seconds):.1f} s"


def goal(wakes: Sequence[Wake]) -> str:
    seconds = answered(wakes)
    if not seconds:
        return f"p50 ≤ {GOAL:g} s"
    reached = "reached" if percentile(seconds, 50) <= GOAL else "not reached"
    return f"p50 ≤ {GOAL:g} s: {reached}"


def share(found: Run) -> str:
    whole, part = found.always_awake_mib, found.sessions_mib
    return f"{100 * part / whole:.0f} %" if whole and part is not None else "-"


def span(values: Sequence[float], unit: str = "") -> str:
    middle = mean([*values])
    return "-" if middle is None else f"{middle:,.0f} / {max(values):,.0f}{unit}"


def mebibytes(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} MiB"


def _volumes(sizes: Sequence[float]) -> str:
    return f"{percentile(sizes, 50):.1f} / {max(sizes):.1f} MiB" if sizes else "-"


def _problem(wake: Wake) -> str:
    if not wake.answered:
        return f"{wake.status or 'no answer'} {wake.problem}".strip()
    return " and ".join(
        problem
        for problem, is_so in (
            ("not delivered once", not wake.delivered),
            ("not restored", not wake.restored),
        )
        if is_so
    )


# --- the picture ----------------------------------------------------------------------------------


def picture(found: Run) -> str:
    panels, seconds = list[Panel](), answered(found.wakes)
    if seconds:
        row = Row("woken by a text", Dots(seconds), latency(found.wakes), MEASURED)
        axis = linear("s", max(GOAL, *seconds))
        goals = [(GOAL, f"goal of p50: {GOAL:g} s")]
        panels.append(Panel("From a text through the gateway to its answer", axis, [row], goals))
    bars = [
        (f"{found.sessions} sessions, {found.awake} awake", found.sessions_mib, MEASURED),
        ("all awake: computed", found.always_awake_mib, COMPUTED),
    ]
    measured = [(label, mib, colour) for label, mib, colour in bars if mib is not None]
    lines = [Row(label, Bar(mib), mebibytes(mib), colour) for label, mib, colour in measured]
    most = max((mib for _, mib, _ in measured), default=1)
    panels.append(Panel("Memory of all session pods", linear("MiB", most), lines))
    return draw("Hibernation, measured", panels, "Each dot is one text; left is better.")
