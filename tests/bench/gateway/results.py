"""The measured values, as in ``results.json``; ``report.py`` evaluates them."""

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
    """Responses of one path, with the time of each request and the length of a body in bytes."""

    connections: int
    bytes: int
    per_second: float
    milliseconds: Quantiles


class Lists(BaseModel):
    """Lists of sessions. ``loads`` has, by server and page, one for each number of connections."""

    sessions: int
    loads: dict[str, list[Load]] = {}
    requests: int = 0  # that the gateway has answered with lists
    api_calls: int = 0  # that it made to the API server meanwhile, beside its watch
    memory_mib: float = 0  # of the gateway with the sessions


class Told(BaseModel):
    """Changes that were sent to clients: milliseconds from the change to the client."""

    clients: int
    sessions: int  # each has the same number of clients
    milliseconds: Quantiles
    joined_seconds: float  # until all had joined
    kib_per_client: float
    cpu_microseconds: float  # of the server, for each change and client
    idle_cpu_percent: float  # of one core, while nothing happens


class Results(BaseModel):
    conditions: dict[str, str] = {}
    lists: Lists | None = None
    told: dict[str, list[Told]] = {}  # by server


def load() -> Results:
    return Results.model_validate_json(PATH.read_bytes()) if PATH.exists() else Results()


def save(found: Results) -> None:
    PATH.write_text(found.model_dump_json(indent=1) + "\n")
