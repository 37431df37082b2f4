"""The measured values, as in ``results.json``; ``report.py`` evaluates them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from bench.measured import percentile

PATH = Path(__file__).with_name("results.json")
SLOW = 2000.0  # milliseconds: the 95th percentile of a round that is not good any more

Swap = Literal["none", "file", "zswap"]
End = Literal["OOM kill", "not Ready", "no answer", "slow"]
SWAPS: tuple[Swap, ...] = ("none", "file", "zswap")


class Usage(BaseModel):
    """MiB of all sessions together.

    ``anonymous`` and ``shared`` (shmem, memfd) are resident, ``swapped`` is not; ``compressed`` is
    the part of RAM that zswap takes for it. ``files`` are cached pages of files, the programs' own
    among them, ``kernel`` is what the kernel needs for them, such as page tables.
    """

    anonymous: float
    shared: float
    swapped: float
    compressed: float
    files: float
    kernel: float

    @property
    def private(self) -> float:
        """What belongs to single sessions and is no file, wherever it is."""
        return self.anonymous + self.shared + self.swapped


class Faults(BaseModel):
    """Page faults during a round, of all sessions.

    ``major`` are those that had to wait, be it for a file, for zswap or for the swap file;
    ``swap_reads`` are pages read from the swap file, ``zswap_reads`` those that zswap had.
    """

    major: int
    swap_reads: int
    zswap_reads: int


class Round(BaseModel):
    """Each session has received a text and sent an answer, one session after the other.

    ``milliseconds`` are from the text's sending to WhatsApp's response to the answer.
    """

    ready_seconds: float  # from the start of the last session to Ready
    milliseconds: list[float]
    usage: Usage  # before the round
    faults: Faults

    @property
    def sessions(self) -> int:
        return len(self.milliseconds)

    @property
    def p50(self) -> float:
        return percentile(self.milliseconds, 50)

    @property
    def p95(self) -> float:
        return percentile(self.milliseconds, 95)

    @property
    def good(self) -> bool:
        return self.p95 <= SLOW


class Run(BaseModel):
    """One more session before each round, until one is not served; ``end`` says how."""

    contender: str
    limit_mib: int
    swap: Swap
    modules: int  # of the page
    rounds: list[Round]
    end: End
    other_chromium: int  # other processes of Chromium on the machine: their files do not count here

    @property
    def last_good(self) -> Round | None:
        return next((each for each in reversed(self.rounds) if each.good), None)

    @property
    def sessions(self) -> int:
        """The most sessions with a good round."""
        return self.last_good.sessions if self.last_good else 0


class Results(BaseModel):
    conditions: dict[str, str] = {}
    runs: list[Run] = []


def load() -> Results:
    return Results.model_validate_json(PATH.read_bytes()) if PATH.exists() else Results()


def save(results: Results) -> None:
    PATH.write_text(results.model_dump_json(indent=1) + "\n")
