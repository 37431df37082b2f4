"""What was measured, as it lies in ``results.json``. What it means is in ``report.py``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

PATH = Path(__file__).with_name("results.json")


class Quantiles(BaseModel):
    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cls(count=len(values), p50=cuts[49], p99=cuts[98], most=max(values))


class Load(BaseModel):
    """Answers to one path; the times are what each request took, ``bytes`` is a body's length."""

    connections: int
    bytes: int
    per_second: float
    milliseconds: Quantiles


class Lists(BaseModel):
    """Lists of sessions. ``loads`` is by server and page, one for each number of connections."""

    sessions: int
    loads: dict[str, list[Load]] = {}
    requests: int = 0  # that the gateway has answered with lists
    api_calls: int = 0  # that it made to the API server meanwhile, beside its watch
    memory_mib: float = 0  # of the gateway with the sessions


class Told(BaseModel):
    """Changes that were told to clients: milliseconds from the change to the client."""

    clients: int
    sessions: int  # that they have joined; the clients are shared out evenly
    milliseconds: Quantiles
    joined_seconds: float  # until all had joined
    kib_per_client: float
    cpu_microseconds: float  # of the server, for each client that was told
    idle_cpu_percent: float  # of one core, while nothing happens


class Results(BaseModel):
    conditions: dict[str, str] = {}
    lists: Lists | None = None
    told: dict[str, list[Told]] = {}  # by server


def load() -> Results:
    return Results.model_validate_json(PATH.read_bytes()) if PATH.exists() else Results()


def save(found: Results) -> None:
    PATH.write_text(found.model_dump_json(indent=1) + "\n")
