"""The measured values, as in ``docs/benchmarks/operator.json``; ``report.py`` evaluates them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

PATH = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "operator.json"
Kinds = dict[str, int]  # "create pods" -> how often
KILLED, FROZEN, TERMINATED = "killed", "frozen", "terminated"  # what happens to a leader


class Quantiles(BaseModel):
    count: int
    p50: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cls(count=len(values), p50=cuts[49], p90=cuts[89], p99=cuts[98], most=max(values))


class Machine(BaseModel):
    """``cpu_percent_before`` is other work, before the benchmark started anything."""

    cores: int
    memory_gib: int
    kernel: str
    cpu_percent_before: float
    python: str
    kubernetes: str


class Program(BaseModel):
    """A part of the cluster: its memory when all are Ready, and the CPU until then."""

    memory_mib: float
    cpu_seconds: float


class Writes(BaseModel):
    """Writes to the API server per session, without Events and Leases."""

    kinds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.kinds.values())


class Replica(BaseModel):
    """An operator's process: the shards that it held, and the most memory that it has used."""

    shards: int
    memory_mib: float
    cpu_seconds: float


class Idle(BaseModel):
    """Nothing happens for ``seconds``; ``cpu_percent`` of a core, by replica."""

    seconds: float
    writes: Kinds
    lease_writes: int
    cpu_percent: list[float]


class Restart(BaseModel):
    """All replicas end and start again; ``seconds`` until all sessions are reconciled."""

    seconds: float
    writes: Kinds
    replicas: list[Replica]


class Move(BaseModel):
    """A replica ends in order and its shards move to the others; then another one starts.

    The seconds are those until the others listen to all session pods, and until the shares are
    fair again.
    """

    shards: int  # that moved away
    away_seconds: float
    back_seconds: float
    writes: Kinds


class OperatorRun(BaseModel):
    """``replicas`` are as they were when all sessions were Ready."""

    shards: int
    memory_empty_mib: float  # of a replica, before the first session is created
    writes_of_start: Kinds = {}  # with the sessions that stand already
    applied_seconds: float
    ready_seconds: float
    applied_to_pod_ms: Quantiles
    deleted_to_pod_ms: Quantiles
    writes_to_ready: Writes
    writes_of_removal: Writes
    replicas: list[Replica]
    idle: Idle
    restart: Restart
    move: Move | None  # None with a single replica
    cluster: dict[str, Program]  # by name, with the benchmark's own process


class StatefulSets(BaseModel):
    """A StatefulSet of one replica for each session."""

    applied_seconds: float
    ready_seconds: float
    applied_to_pod_ms: Quantiles
    deleted_to_pod_ms: Quantiles
    writes_to_ready: Writes


class StatefulSet(BaseModel):
    """One StatefulSet with a replica for each session."""

    pods_per_second: float
    deleted_to_pod_ms: Quantiles
    writes_to_ready: Writes


class Run(BaseModel):
    """All contenders with one number of sessions."""

    machine: Machine
    sessions: int
    standing: int = 0  # of the sessions; the others are created
    rate: float  # sessions a second
    operator: OperatorRun
    statefulsets: StatefulSets | None = None
    statefulset: StatefulSet | None = None


class Failover(BaseModel):
    """``seconds`` from the end of a leader to the next pod, by what has ended it.

    ``late_writes`` are those of a replica to a session whose shard another one had taken over;
    ``other_writes`` those to sessions that had lost nothing but their leader.
    """

    sessions: int
    seconds: dict[str, list[float]]
    late_writes: Kinds = {}
    other_writes: Kinds = {}


class Failovers(BaseModel):
    machine: Machine
    shards: int
    replicas: int
    operator: Failover
    controller_manager: Failover | None = None


class Results(BaseModel):
    runs: list[Run] = []
    failovers: dict[int, Failovers] = {}  # by the number of shards

    def add(self, run: Run) -> None:
        """Put a run in the place of an earlier one of the same size and rate."""

        def key(run: Run) -> tuple[int, int, float]:
            return run.sessions, run.standing, run.rate

        others = [earlier for earlier in self.runs if key(earlier) != key(run)]
        self.runs = sorted([*others, run], key=key)


def load() -> Results:
    return Results.model_validate_json(PATH.read_bytes()) if PATH.exists() else Results()


def save(found: Results) -> None:
    ordered = Results(runs=found.runs, failovers=dict(sorted(found.failovers.items())))
    PATH.write_text(ordered.model_dump_json(indent=1) + "\n")
