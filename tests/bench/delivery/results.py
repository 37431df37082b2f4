"""The measured values, as in ``docs/benchmarks/delivery.json``; ``report.py`` evaluates them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

PATH = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "delivery.json"


class Latency(BaseModel):
    """Milliseconds to the receiver: from the message, and from when it was stored."""

    rate: int  # messages a second
    count: int
    message_p50: float
    message_p99: float
    stored_p50: float | None = None
    stored_p99: float | None = None


class Drain(BaseModel):
    """A queue of events that waited for a webhook."""

    events: int
    stored_per_second: float
    drained_per_second: float
    memory_mib_before: float
    memory_mib_most: float


class Kills(BaseModel):
    """What of the messages has arrived of a contender that was killed again and again."""

    seed: int
    rate: float  # messages a second
    kills: int
    deaths: int  # of the receiver
    logins_lost: int  # kills after which a phone had to scan a QR again
    sent: int
    lost: int
    requests: int  # that were answered with 200
    repeated: int  # of them, under an ID that was known
    out_of_order: int  # messages that the receiver keeps behind a later one of their chat
    seconds: float


class Results(BaseModel):
    conditions: dict[str, str] = {}
    latency: dict[str, Latency] = {}  # by contender
    drain: Drain | None = None
    kills: dict[str, Kills] = {}  # by contender


def load() -> Results:
    return Results.model_validate_json(PATH.read_bytes()) if PATH.exists() else Results()


def save(found: Results) -> None:
    PATH.write_text(found.model_dump_json(indent=1) + "\n")
