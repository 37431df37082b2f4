"""The numbers become the right page and well-formed pictures."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.charts import linear, logarithmic
from bench.operator.report import draw_failovers, draw_latencies, draw_scale, page
from bench.operator.results import (
    FROZEN,
    KILLED,
    TERMINATED,
    Failover,
    Failovers,
    Idle,
    Machine,
    Move,
    OperatorRun,
    Program,
    Quantiles,
    Replica,
    Restart,
    Results,
    Run,
    StatefulSet,
    StatefulSets,
    Writes,
)

MACHINE = Machine(
    cores=2,
    memory_gib=24,
    kernel="6.18",
    cpu_percent_before=1,
    python="3.11",
    kubernetes="v1.34.4",
)


def times(p50: float, p99: float) -> Quantiles:
    return Quantiles(count=300, p50=p50, p90=p99, p99=p99, most=p99)


def run(sessions: int, *, peers: bool) -> Run:
    writes = Writes(kinds={"create pods": 1, "patch pods": 4.25})
    operator = OperatorRun(
        shards=4,
        memory_empty_mib=70,
        applied_seconds=10,
        ready_seconds=20,
        applied_to_pod_ms=times(90, 600),
        deleted_to_pod_ms=times(20, 140),
        writes_to_ready=writes,
        writes_of_removal=Writes(kinds={"patch pods": 2.5}),
        replicas=[
            Replica(shards=4, memory_mib=200, cpu_seconds=15),
            Replica(shards=0, memory_mib=100, cpu_seconds=5),
        ],
        idle=Idle(seconds=60, writes={}, lease_writes=90, cpu_percent=[0.5, 1.25]),
        restart=Restart(
            seconds=9,
            writes={"create pods": 3},
            replicas=[Replica(shards=2, memory_mib=310, cpu_seconds=4)],
        ),
        move=Move(
            shards=1,
            away_seconds=2,
            back_seconds=3,
            writes={},
        ),
        cluster={"etcd": Program(memory_mib=1234, cpu_seconds=10)},
    )
    made = Run(machine=MACHINE, sessions=sessions, rate=75, operator=operator)
    if peers:
        made.statefulsets = StatefulSets(
            applied_seconds=10,
            ready_seconds=36,
            applied_to_pod_ms=times(3635, 7428),
            deleted_to_pod_ms=times(21, 96),
            writes_to_ready=writes,
        )
        made.statefulset = StatefulSet(
            pods_per_second=359, deleted_to_pod_ms=times(29, 118), writes_to_ready=writes
        )
    return made


def failovers() -> Failovers:
    ours = Failover(
        sessions=200,
        seconds={KILLED: [9.0, 11.0], FROZEN: [10.0, 16.0], TERMINATED: [1.0, 1.0]},
        late_writes={"create pods": 1},
    )
    return Failovers(machine=MACHINE, shards=1, replicas=2, operator=ours)


def test_goals_are_judged() -> None:
    lines = page([run(1000, peers=True), run(20000, peers=False)], [failovers()]).splitlines()
    assert "| sessions | 1,000 | 20,000 | goal |" in lines
    assert "| created at | 75/s | 75/s |  |" in lines
    assert "| CR → pod, p50 | 90 ms | 90 ms | 100 ms |" in lines
    assert "| CR → pod, p99 | **600 ms** | **600 ms** | 500 ms |" in lines
    assert "| writes from the CR to Ready | 5.25 | 5.25 | 6 |" in lines
    assert "| writes of a removal | **2.50** | **2.50** | 2 |" in lines
    row = "CPU per session from the CR to Ready, of the replicas with shards"
    assert f"| {row} | **15 ms** | 1 ms | 10 ms |" in lines
    assert "| … of all replicas | 20 ms | 1 ms |  |" in lines
    assert "| memory of a replica, of the largest | **310 MiB** | **310 MiB** | 300 MiB |" in lines
    assert (
        "| restart of all replicas: writes | **3** (3 create pods) | **3** (3 create pods) | 0 |"
        in lines
    )
    assert "| writes to Leases while idle, a second | 1.5 | 1.5 |  |" in lines
    assert "| 1,000 | 75/s | one StatefulSet | 359 pods/s | 29 / 118 ms |  | 5.2 |" in lines
    assert "| sessions | 1,000 at 75/s | 20,000 at 75/s |" in lines
    assert "| etcd | 1,234 MiB, 0.50 cores | 1,234 MiB, 0.50 cores |" in lines
    frozen = "200 | frozen (SIGSTOP) | wasession | 2 | 13.0 s | **15.9 s** | 16.0 s |"
    assert f"| 1 shard, 2 replicas | {frozen}" in lines
    assert "| 1 shard, 2 replicas | **1** (1 create pods) | 0 |" in lines


def test_what_stands_already_is_told_apart() -> None:
    some = run(20000, peers=False).model_copy(update={"standing": 19500})
    text = page([run(1000, peers=False), some], [])
    lines = text.splitlines()
    assert "| sessions | 1,000 | 20,000, 19,500 of them standing | goal |" in lines
    row = "CPU per session from the CR to Ready, of the replicas with shards"
    assert f"| {row} | **15 ms** |  | 10 ms |" in lines
    assert "| start with the sessions that stand already: writes |  | 0 | 0 |" in lines
    assert "copies of these in etcd" in text
    assert "copies of these in etcd" not in page([run(1000, peers=False)], [])
    draw_scale([some])


def test_a_run_replaces_the_one_of_its_size_and_rate() -> None:
    found = Results()
    slow = run(1000, peers=False).model_copy(update={"rate": 5})
    for one in (run(20000, peers=False), run(1000, peers=False), slow, run(1000, peers=True)):
        found.add(one)
    assert [(one.sessions, one.rate) for one in found.runs] == [(1000, 5), (1000, 75), (20000, 75)]
    assert found.runs[1].statefulset is not None


def test_pictures_are_well_formed() -> None:
    runs = [run(1000, peers=True), run(20000, peers=False)]
    for picture in (draw_latencies(runs), draw_scale(runs), draw_failovers([failovers()])):
        root = ElementTree.fromstring(picture)  # noqa: S314 - it is our own
        assert root.attrib["aria-label"]
        labels = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any(label and label.startswith("goal") for label in labels)


def test_axes_reach_from_end_to_end() -> None:
    axis = linear("s", 15.9)
    assert [label for _, label in axis.ticks] == ["0", "5", "10", "15", "20"]
    assert axis.place(10) == (axis.place(0) + axis.place(20)) / 2
    axis = logarithmic("ms", 19, 7428)
    assert [label for _, label in axis.ticks] == ["10", "100", "1,000", "10,000"]
    assert axis.place(1) == axis.place(10) < axis.place(100)
