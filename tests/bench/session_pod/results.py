"""The measured values by contender, as in ``results.json``; ``report.py`` evaluates them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

PATH = Path(__file__).with_name("results.json")
Series = dict[str, list[float]]  # contender -> one value for each repetition


class Memory(BaseModel):
    """MiB. ``private`` is anonymous and shared memory, which belongs to one session.

    ``pss`` adds a share of the pages of mapped files; ``rss`` counts shared pages in each process.
    """

    private: float
    pss: float
    rss: float

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            private=self.private + other.private, pss=self.pss + other.pss, rss=self.rss + other.rss
        )


Tree = dict[str, Memory]  # kind of process -> its memory


class Starts(BaseModel):
    """Seconds from the process's start."""

    qr_seconds: Series = {}
    ready_seconds: Series = {}
    memory: dict[str, list[Tree]] = {}
    stuck: dict[str, int] = {}  # starts with a stored login that never got ready


class Messages(BaseModel):
    """Memory after ``received`` and ``sent`` texts."""

    received: int
    sent: int
    memory: dict[str, list[Tree]] = {}


class Idle(BaseModel):
    """Percent of one core, by kind of process, over ``seconds``."""

    seconds: float
    cpu_percent: dict[str, list[dict[str, float]]] = {}


class Sends(BaseModel):
    """Milliseconds that callers waited for a text to be sent."""

    milliseconds: Series = {}
    # Of the session pod: means from its call into the page to WhatsApp's answer.
    page_milliseconds: list[float] = []


class Kill(BaseModel):
    """SIGKILL ``after`` seconds from ready, and the ``outcome`` of the next start."""

    after: float
    outcome: str


class Kills(BaseModel):
    scan_after: float  # seconds between the QR and its scan
    kills: dict[str, list[Kill]] = {}


class Results(BaseModel):
    conditions: dict[str, str] = {}
    start: Starts | None = None
    heavy: Starts | None = None  # of the page with as many modules as the real one
    messages: Messages | None = None
    idle: Idle | None = None
    send: Sends | None = None
    kill: Kills | None = None


def load() -> Results:
    return Results.model_validate_json(PATH.read_bytes()) if PATH.exists() else Results()


def save(results: Results) -> None:
    PATH.write_text(results.model_dump_json(indent=1, exclude_none=True) + "\n")
