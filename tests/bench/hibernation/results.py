"""The measured values, as in ``docs/benchmarks/hibernation.json``; ``report.py`` evaluates them."""

from __future__ import annotations

import statistics
from pathlib import Path

from pydantic import BaseModel

DIRECTORY = Path(__file__).resolve().parents[3] / "docs" / "benchmarks"
NAME = "hibernation.json"


class Wake(BaseModel):
    """A text through the gateway to a session that slept.

    ``seconds`` are from the request to the answer, ``status`` is that of HTTP, and None without an
    answer; ``problem`` says why, without a text or a phone number.
    """

    session: str
    at: float  # seconds since the load began
    seconds: float
    status: int | None
    problem: str = ""
    delivered: bool  # by WhatsApp's server, exactly once
    restored: bool  # from the stored login, without a new code

    @property
    def answered(self) -> bool:
        return self.status is not None and self.status < 300

    @property
    def good(self) -> bool:
        return self.answered and self.delivered and self.restored


class Link(BaseModel):
    """A session that was created and linked; ``seconds`` until it was Ready, None if it was not."""

    session: str
    seconds: float | None
    problem: str = ""


class Sample(BaseModel):
    """What all of it uses at a moment.

    Memory is anonymous and shared (shmem, memfd), in MiB; CPU and writes are those since the sample
    before. The operator and the gateway have several replicas, which are counted together.
    """

    seconds: float  # since the load began
    interval: float  # seconds since the sample before
    pods: int  # of sessions
    ready: int  # sessions that are Ready
    anonymous_mib: float  # of all session pods
    shared_mib: float
    ready_mib: float  # of the pods of sessions that are Ready
    others_mib: dict[str, float]  # the operator's pods, the gateway's, …
    cpu_seconds: dict[str, float]  # by the same names; "sessions", and "machine" for everything
    writes: dict[str, int]  # to the API server, of operator and gateway: "create pods" -> how often
    lease_writes: int

    @property
    def sessions_mib(self) -> float:
        return self.anonymous_mib + self.shared_mib


class Run(BaseModel):
    """``sessions`` of which about ``awake`` are kept awake for ``minutes``.

    The load lasts longer by ``ramp`` seconds, in which the first ones have not yet fallen asleep
    again: their texts count, their samples do not.
    """

    conditions: dict[str, str]
    seed: int  # of the choice of sessions
    sessions: int
    awake: int
    minutes: float
    ramp: float
    interval: float  # seconds between two texts
    finished: bool = False
    links: list[Link] = []
    wakes: list[Wake] = []
    samples: list[Sample] = []
    nobody_slept: int = 0  # texts that were not sent, as no session slept
    checks: list[Wake] = []  # at the end, of sessions that have slept on as far as possible
    logged_out: list[str] = []  # sessions whose device the phone does not list any more
    phases: dict[str, int] = {}  # of all sessions at the end
    volumes_mib: list[float] = []  # what is on each session's volume at the end

    @property
    def steady(self) -> list[Sample]:
        """The samples since as many are awake as always."""
        return [sample for sample in self.samples if sample.seconds >= self.ramp]

    @property
    def awake_mib(self) -> float | None:
        """The memory of one session that is awake, on average; None if none was measured."""
        ready = sum(sample.ready for sample in self.steady)
        return sum(sample.ready_mib for sample in self.steady) / ready if ready else None

    @property
    def always_awake_mib(self) -> float | None:
        """What all sessions would need if none slept: computed, not measured."""
        return None if self.awake_mib is None else self.awake_mib * self.sessions

    @property
    def sessions_mib(self) -> float | None:
        """The memory of all session pods, on average."""
        return mean([sample.sessions_mib for sample in self.steady])

    @property
    def linked(self) -> int:
        return sum(link.seconds is not None for link in self.links)


def mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def load(directory: Path) -> Run | None:
    path = directory / NAME
    return Run.model_validate_json(path.read_bytes()) if path.exists() else None


def save(directory: Path, found: Run) -> None:
    """Replace the file at once: a run that is killed leaves what it had saved."""
    new = directory / f".{NAME}"
    new.write_text(found.model_dump_json(indent=1) + "\n")
    new.replace(directory / NAME)
