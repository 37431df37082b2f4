"""The results as a page with pictures: ``docs/benchmarks/operator.md``, beside its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.charts import Axis, Bar, Dots, Panel, Range, Row, draw, linear, logarithmic
from bench.measured import table
from bench.operator.results import (
    FROZEN,
    KILLED,
    PATH,
    TERMINATED,
    Failovers,
    Kinds,
    Machine,
    Quantiles,
    Results,
    Run,
    Writes,
)

PAGE = PATH.with_suffix(".md")
OTHER_WORK = 10  # percent of the machine's CPU, before anything is started
OURS, EACH, ONE = "wasession", "a StatefulSet for each", "one StatefulSet"
PEER = "kube-controller-manager"
COLOURS = {OURS: "#1a73e8", EACH: "#5f6368", ONE: "#9aa0a6", PEER: "#5f6368"}
ENDS = {KILLED: "killed (SIGKILL)", FROZEN: "frozen (SIGSTOP)", TERMINATED: "stopped (SIGTERM)"}
# Goals.
APPLIED_P50, APPLIED_P99, DELETED_P50 = 100, 500, 100  # milliseconds
WRITES_TO_READY, WRITES_OF_REMOVAL = 6, 2
CPU_MS = 10  # of the operator, from the CR to Ready
MEMORY_MIB = 300  # of each replica
IDLE_PERCENT, IDLE_SESSIONS = 1.5, 5000  # of a core, with so many sessions
FAILOVER_SECONDS = 15


def write(found: Results) -> None:
    """Write the page, and the pictures for which there are results."""
    runs, failovers = found.runs, list(found.failovers.values())
    if runs:
        PAGE.with_name("operator.svg").write_text(draw_latencies(runs))
        PAGE.with_name("operator-scale.svg").write_text(draw_scale(runs))
    if failovers:
        PAGE.with_name("operator-failover.svg").write_text(draw_failovers(failovers))
    PAGE.write_text(page(runs, failovers))


def page(runs: Sequence[Run], failovers: Sequence[Failovers]) -> str:
    lines = [
        "# The operator, measured",
        "",
        "`make bench-operator` measures the operator against a real control plane (etcd,",
        "kube-apiserver, kube-controller-manager, kube-scheduler) with nodes of",
        "[kwok](https://kwok.sigs.k8s.io). The session pods are fakes: kwok makes them Ready at",
        "once, and a few servers answer for all of them. So this is what the operator and the API",
        "server do, not what Chromium does. Times and counts of writes are from the API server's",
        "audit log; everything runs on one machine. The numbers are in",
        "[operator.json](operator.json).",
    ]
    if runs:
        lines += scale_section(runs)
    if failovers:
        lines += failover_section(failovers)
    if runs:
        lines += machine_section(runs)
    return "\n".join(lines) + "\n"


# --- sizes ----------------------------------------------------------------------------------------


def scale_section(runs: Sequence[Run]) -> list[str]:
    return [
        "",
        "## Scale",
        "",
        *table(["sessions", *map(size, runs), "goal"], scale_rows(runs)),
        "",
        "Bold: not within the goal. Memory is the most that a process has had resident. Each",
        "replica caches all sessions; which ones it acts on is divided by shards. Writes are",
        "counted without Events, without the replicas' own Leases, which have a row, and without",
        "the status of the class. The fakes have no login ID: with one, a second after a session",
        "is Ready, one more write notes it on the claim. A moved shard: a replica is terminated",
        "and its shards move to the others, then it starts again and gets its share back.",
        *standing(runs),
        "",
        "![Memory, idle CPU and CPU per session](operator-scale.svg)",
        "",
        "## CR to pod, compared with StatefulSets",
        "",
        "The peer is Kubernetes' own StatefulSet controller, in the same run, on a fresh cluster",
        "of the same kind, with the same pod and claim. It does less: no token for each session,",
        "no status of what runs in the pod. Both are created at the same rate, whatever the",
        "machine can do: at more than that the times are mostly those of waiting in a queue.",
        "",
        "![CR to pod, pod to next pod](operator.svg)",
        "",
        *table(
            ["sessions", "created at", "", "CR → pod, p50 / p99", "pod deleted → next, p50 / p99",
             "all Ready", "writes to Ready"],
            [row for run in runs for row in peer_rows(run)],
        ),
    ]  # fmt: skip


def scale_rows(runs: Sequence[Run]) -> Iterator[list[str]]:
    def row(name: str, cell: Callable[[Run], str], goal: str = "") -> list[str]:
        return [name, *(cell(run) for run in runs), goal]

    yield row("shards, replicas", lambda r: f"{r.operator.shards}, {len(r.operator.replicas)}")
    yield row("created at", lambda r: f"{r.rate:g}/s")
    yield row(
        "CR → pod, p50",
        lambda r: judge(r.operator.applied_to_pod_ms.p50, APPLIED_P50, milliseconds),
        f"{APPLIED_P50} ms",
    )
    yield row(
        "CR → pod, p99",
        lambda r: judge(r.operator.applied_to_pod_ms.p99, APPLIED_P99, milliseconds),
        f"{APPLIED_P99} ms",
    )
    yield row(
        "pod deleted → next pod, p50",
        lambda r: judge(r.operator.deleted_to_pod_ms.p50, DELETED_P50, milliseconds),
        f"{DELETED_P50} ms",
    )
    yield row(
        "writes from the CR to Ready",
        lambda r: judge(per_session(r.operator.writes_to_ready), WRITES_TO_READY, "{:.2f}".format),
        f"{WRITES_TO_READY}",
    )
    yield row(
        "writes of a removal",
        lambda r: judge(
            per_session(r.operator.writes_of_removal), WRITES_OF_REMOVAL, "{:.2f}".format
        ),
        f"{WRITES_OF_REMOVAL}",
    )
    yield row(
        "CPU per session from the CR to Ready, of the replicas with shards",
        lambda r: "" if r.standing else judge(cpu_per_session(r), CPU_MS, milliseconds),
        f"{CPU_MS} ms",
    )
    yield row(
        "… of all replicas",
        lambda r: "" if r.standing else milliseconds(cpu_per_session(r, standby=True)),
    )
    yield row(
        "memory of a replica, of the largest",
        lambda r: judge(memory(r), MEMORY_MIB, mebibytes),
        f"{MEMORY_MIB} MiB",
    )
    yield row(
        "… without sessions",
        lambda r: "" if r.standing else mebibytes(r.operator.memory_empty_mib),
    )
    yield row(
        "idle CPU of a replica, of the busiest, of one core",
        lambda r: judge(idle_cpu(r), idle_goal(r), "{:.1f} %".format),
        f"{IDLE_PERCENT} % with {IDLE_SESSIONS}",
    )
    yield row(
        "writes while idle",
        lambda r: none(r.operator.idle.writes),
        "0",
    )
    yield row(
        "writes to Leases while idle, a second",
        lambda r: f"{r.operator.idle.lease_writes / r.operator.idle.seconds:.1f}",
    )
    if any(run.standing for run in runs):
        yield row(
            "start with the sessions that stand already: writes",
            lambda r: none(r.operator.writes_of_start) if r.standing else "",
            "0",
        )
    yield row(
        "restart of all replicas: writes",
        lambda r: none(r.operator.restart.writes),
        "0",
    )
    yield row("… until all is reconciled", lambda r: f"{r.operator.restart.seconds:.0f} s")
    yield row(
        "… CPU of all replicas",
        lambda r: f"{sum(one.cpu_seconds for one in r.operator.restart.replicas):.0f} s",
    )
    yield row("moved shards: writes", moved, "0")
    yield row("… until the others act; until shares are fair again", moved_seconds)


def standing(runs: Sequence[Run]) -> list[str]:
    """Return what is to be known of sessions that stand already, if there are any."""
    if not any(run.standing for run in runs):
        return []
    return [
        "",
        "To create tens of thousands of sessions takes two cores hours, nearly all of them in the",
        "API server. Where some stand already, the operator has made one for each node, and the",
        "others are copies of these in etcd, with names, UIDs, addresses and tokens of their own.",
        "That it writes nothing to them when it starts shows that they are what it would make.",
        "CR → pod is that of the others, with all that stand; the CPU per session is left out, as",
        "it would be mostly that of the ones that stand.",
    ]


def size(run: Run) -> str:
    return f"{run.sessions:,}" + (f", {run.standing:,} of them standing" if run.standing else "")


def moved(run: Run) -> str:
    return "" if run.operator.move is None else none(run.operator.move.writes)


def moved_seconds(run: Run) -> str:
    move = run.operator.move
    return "" if move is None else f"{move.away_seconds:.0f} s; {move.back_seconds:.0f} s"


def peer_rows(run: Run) -> Iterator[list[str]]:
    def row(name: str, applied: str, deleted: Quantiles, ready: str, writes: Writes) -> list[str]:
        sizes = [size(run), f"{run.rate:g}/s"]
        return [*sizes, name, applied, times(deleted), ready, f"{writes.total:.1f}"]

    ours, each, one = run.operator, run.statefulsets, run.statefulset
    yield row(
        OURS,
        times(ours.applied_to_pod_ms),
        ours.deleted_to_pod_ms,
        f"{ours.ready_seconds:.0f} s",
        ours.writes_to_ready,
    )
    if each is not None:
        yield row(
            EACH,
            times(each.applied_to_pod_ms),
            each.deleted_to_pod_ms,
            f"{each.ready_seconds:.0f} s",
            each.writes_to_ready,
        )
    if one is not None:
        pods = f"{one.pods_per_second:.0f} pods/s"
        yield row(ONE, pods, one.deleted_to_pod_ms, "", one.writes_to_ready)


def draw_latencies(runs: Sequence[Run]) -> str:
    applied, deleted = list[Row](), list[Row]()
    for run in runs:
        label = f"{run.sessions:,} at {run.rate:g}/s, "
        applied.append(range_row(f"{label}{OURS}", run.operator.applied_to_pod_ms, OURS))
        deleted.append(range_row(f"{label}{OURS}", run.operator.deleted_to_pod_ms, OURS))
        if run.statefulsets is not None:
            applied.append(range_row(f"{label}{EACH}", run.statefulsets.applied_to_pod_ms, EACH))
            deleted.append(range_row(f"{label}{EACH}", run.statefulsets.deleted_to_pod_ms, EACH))
        if run.statefulset is not None:
            deleted.append(range_row(f"{label}{ONE}", run.statefulset.deleted_to_pod_ms, ONE))
    goals = [(APPLIED_P50, "goal of p50"), (APPLIED_P99, "of p99")]
    return draw(
        "Milliseconds from the CR to the pod, and from a deleted pod to the next one",
        [
            Panel("CR applied → pod created", range_axis(applied), applied, goals),
            Panel("pod deleted → next pod created", range_axis(deleted), deleted, goals[:1]),
        ],
        "Dot: p50; end of the line: p99. Logarithmic axis; left is better.",
    )


def range_row(label: str, found: Quantiles, contender: str) -> Row:
    return Row(label, Range(found.p50, found.p99), times(found), COLOURS[contender])


def range_axis(rows: Sequence[Row]) -> Axis:
    return logarithmic("ms", min(r.mark.least for r in rows), max(r.mark.most for r in rows))


def draw_scale(runs: Sequence[Run]) -> str:
    idle_label = f"goal with {IDLE_SESSIONS:,}"
    return draw(
        "Memory, idle CPU and CPU per session, by number of sessions",
        [
            scale_panel(runs, "memory of the largest replica", "MiB", memory, MEMORY_MIB),
            scale_panel(
                runs, "idle CPU of the busiest replica", "% of a core", idle_cpu, IDLE_PERCENT,
                idle_label,
            ),
            scale_panel(
                [run for run in runs if not run.standing],
                "CPU per session from the CR to Ready, of the replicas with shards",
                "ms",
                cpu_per_session, CPU_MS,
            ),
        ],
        "Shorter is better.",
    )  # fmt: skip


def scale_panel(
    runs: Sequence[Run],
    title: str,
    unit: str,
    value: Callable[[Run], float],
    goal: float,
    goal_label: str = "goal",
) -> Panel:
    rows = [
        Row(scale_label(run), Bar(value(run)), f"{value(run):.3g} {unit}", COLOURS[OURS])
        for run in runs
    ]
    most = max([goal, *(value(run) for run in runs)])
    return Panel(title, linear(unit, most), rows, [(goal, goal_label)])


def scale_label(run: Run) -> str:
    found = run.operator
    return f"{run.sessions:,} at {run.rate:g}/s, {layout(found.shards, len(found.replicas))}"


def cpu_per_session(run: Run, *, standby: bool = False) -> float:
    """Return milliseconds of the replicas with shards, or also of those that stand by."""
    counted = [one.cpu_seconds for one in run.operator.replicas if one.shards or standby]
    return sum(counted) * 1000 / run.sessions


def memory(run: Run) -> float:
    """Return MiB."""
    return max(one.memory_mib for one in [*run.operator.replicas, *run.operator.restart.replicas])


def idle_cpu(run: Run) -> float:
    """Return percent of a core."""
    return max(run.operator.idle.cpu_percent)


def idle_goal(run: Run) -> float:
    return IDLE_PERCENT if run.sessions <= IDLE_SESSIONS else float("inf")


# --- failover -------------------------------------------------------------------------------------


def failover_section(failovers: Sequence[Failovers]) -> list[str]:
    return [
        "",
        "## Failover",
        "",
        "A replica that holds a shard ends at a random moment, and right after that a pod of one",
        "of its sessions is deleted. The time is that until another replica has created the next",
        "pod. The peer is kube-controller-manager with two instances and client-go's default",
        "leader election (a lease of 15 s, renewed every 2 s), measured in the same run in the",
        "same way with a StatefulSet for each session.",
        "",
        "![Seconds from the end of a leader to the next pod](operator-failover.svg)",
        "",
        *table(
            ["operator", "sessions", "the leader is", "", "times", "p50", "p99", "most"],
            [row for found in failovers for row in failover_rows(found)],
        ),
        "",
        f"The goal is a p99 of {FAILOVER_SECONDS} s. A frozen replica goes on later, when another",
        "one acts in its place.",
        "",
        *table(
            ["operator", "writes of a replica whose Lease another one had taken over",
             "writes to sessions whose pod was not deleted"],
            [
                [
                    layout(found.shards, found.replicas),
                    none(found.operator.late_writes),
                    none(found.operator.other_writes),
                ]
                for found in failovers
            ],
        ),
    ]  # fmt: skip


def failover_rows(found: Failovers) -> Iterator[list[str]]:
    for kind, label in ENDS.items():
        for name, one in ((OURS, found.operator), (PEER, found.controller_manager)):
            if one is not None:
                seconds = Quantiles.of(one.seconds[kind])
                goal = FAILOVER_SECONDS if name == OURS else float("inf")
                yield [
                    layout(found.shards, found.replicas) if name == OURS else "2 instances",
                    f"{one.sessions}",
                    label,
                    name,
                    f"{seconds.count}",
                    f"{seconds.p50:.1f} s",
                    judge(seconds.p99, goal, "{:.1f} s".format),
                    f"{seconds.most:.1f} s",
                ]


def draw_failovers(failovers: Sequence[Failovers]) -> str:
    panels = []
    for kind, label in ENDS.items():
        rows = [
            dots_row(layout(found.shards, found.replicas), found.operator.seconds[kind], OURS)
            for found in failovers
        ]
        rows += [
            dots_row(PEER, found.controller_manager.seconds[kind], PEER)
            for found in failovers
            if found.controller_manager is not None
        ]
        panels.append((f"leader {label}", rows))
    most = max(row.mark.most for _, rows in panels for row in rows)
    axis = linear("s", max(most, FAILOVER_SECONDS))
    goals = [(FAILOVER_SECONDS, f"goal: {FAILOVER_SECONDS} s")]
    return draw(
        "Seconds from the end of a leader until another one has created a deleted pod",
        [Panel(title, axis, rows, goals) for title, rows in panels],
        "Each dot is one failover; left is better.",
    )


def dots_row(label: str, seconds: Sequence[float], contender: str) -> Row:
    found = Quantiles.of(seconds)
    text = f"p50 {found.p50:.1f} s, p99 {found.p99:.1f} s"
    return Row(label, Dots(seconds), text, COLOURS[contender])


# --- the machine ----------------------------------------------------------------------------------


def machine_section(runs: Sequence[Run]) -> list[str]:
    return [
        "",
        "## The machine",
        "",
        *dict.fromkeys(describe(run.machine) for run in runs),
        *busy(runs),
        "",
        "What the rest of the cluster uses on it until all sessions are Ready; the CPU that it",
        "does not leave is the operator's limit here.",
        "",
        *table(
            ["sessions", *(f"{run.sessions:,} at {run.rate:g}/s" for run in runs)],
            [
                [name, *(program(run, name) for run in runs)]
                for name in dict.fromkeys(name for run in runs for name in run.operator.cluster)
            ],
        ),
    ]


def describe(machine: Machine) -> str:
    return (
        f"{machine.cores} cores, {machine.memory_gib} GiB, Linux {machine.kernel}, "
        f"Python {machine.python}, Kubernetes {machine.kubernetes}."
    )


def busy(runs: Sequence[Run]) -> list[str]:
    """Return a warning if the machine had other work."""
    most = max(run.machine.cpu_percent_before for run in runs)
    if most < OTHER_WORK:
        return []
    return [
        "",
        f"**The machine had other work at the time, up to {most:.0f} % of its CPU.** The counts of",
        "writes and the memory are what they are; the times are only good to compare contenders.",
    ]


def program(run: Run, name: str) -> str:
    found = run.operator.cluster.get(name)
    if found is None:
        return ""
    cores = found.cpu_seconds / run.operator.ready_seconds
    return f"{found.memory_mib:,.0f} MiB, {cores:.2f} cores"


# --- parts ----------------------------------------------------------------------------------------


def judge(value: float, goal: float, text: Callable[[float], str]) -> str:
    """Return the text of a value: bold if it exceeds the goal."""
    return text(value) if value <= goal else f"**{text(value)}**"


def per_session(writes: Writes) -> float:
    """Return the number of writes, without the few of the whole namespace."""
    return round(writes.total, 2)


def none(writes: Kinds) -> str:
    """Return the number of writes, of which there should be none, and their kinds."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in writes.items())
    return f"**{sum(writes.values())}** ({kinds})" if writes else "0"


def times(found: Quantiles) -> str:
    return f"{found.p50:,.0f} / {found.p99:,.0f} ms"


def layout(shards: int, replicas: int) -> str:
    return f"{shards} {'shard' if shards == 1 else 'shards'}, {replicas} replicas"


def milliseconds(value: float) -> str:
    return f"{value:,.0f} ms"


def mebibytes(value: float) -> str:
    return f"{value:,.0f} MiB"
