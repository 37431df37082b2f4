"""Webhooks and sinks, how far each has come, its dead letters: tables of `messages.sqlite`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError
from wasession_api.session_pod.delivery import Configuration
from wasession_api.v1alpha1.delivery import Destination

from wasession_pod.delivery.plan import Progress, Trouble
from wasession_pod.messages.database import Database

log = logging.getLogger(__name__)
MAXIMUM_DEAD = 10_000  # dead letters of a webhook or sink
FORGET_DEAD = """
DELETE FROM dead_letters WHERE rowid IN
(SELECT rowid FROM dead_letters WHERE delivery = ? ORDER BY died_at DESC LIMIT -1 OFFSET ?)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A webhook or sink, and how far it has come in ``outbox``."""

    destination: Destination
    outbox: str
    progress: Progress
    paused: bool = False


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """An event that was given up; ``died_at`` in seconds since the epoch."""

    event_id: str
    kind: str
    died_at: float
    attempts: int
    error: str


class DeliveryStore:
    """Methods block, are safe on any thread, and raise ``DatabaseError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def configuration(self) -> Configuration:
        """Return the configuration; an empty one if it cannot be read, as one of a newer version.

        What the deliveries have reached stays, for the configuration that the operator tells next.
        """
        with self._database.transaction() as database:
            row = database.execute("SELECT configuration FROM delivery_configuration").fetchone()
        try:
            return Configuration.model_validate_json(row[0]) if row else Configuration()
        except ValidationError as error:
            log.warning(
                "cannot read the configuration of deliveries; waiting for the next one",
                extra={"errors": error.error_count()},
            )
            return Configuration()

    def kept(self, destinations: Iterable[Destination]) -> dict[str, Kept]:
        """Return how far those of the destinations have come that are known, by name."""
        with self._database.transaction() as database:
            rows = database.execute("SELECT name, outbox, progress, paused FROM deliveries")
            known = {name: rest for name, *rest in rows}
        found = dict[str, Kept]()
        for one in destinations:
            if one.name in known:
                outbox, progress, paused = known[one.name]
                found[one.name] = Kept(one, outbox, _decode(one.name, progress), bool(paused))
        return found

    def save(self, configuration: Configuration, kept: Iterable[Kept]) -> None:
        """Keep these and no others; dead letters go with their webhook or sink."""
        with self._database.transaction() as database:
            database.execute(
                "REPLACE INTO delivery_configuration (one, configuration) VALUES (1, ?)",
                (configuration.model_dump_json(by_alias=True, exclude_none=True),),
            )
            database.execute("DELETE FROM deliveries")
            database.executemany(
                "INSERT INTO deliveries (name, outbox, progress, paused) VALUES (?, ?, ?, ?)",
                [
                    (one.destination.name, one.outbox, _encode(one.progress), one.paused)
                    for one in kept
                ],
            )
            database.execute(
                "DELETE FROM dead_letters WHERE delivery NOT IN (SELECT name FROM deliveries)"
            )

    def advance(
        self, kept: Kept, dead: Iterable[StoredDeadLetter], delivered: Iterable[str]
    ) -> None:
        """Keep how far a delivery has come, and its new dead letters.

        Events that were ``delivered`` after all are no dead letters any more.
        """
        name = kept.destination.name
        with self._database.transaction() as database:
            # The file is a new one if the former one was damaged meanwhile.
            database.execute(
                "REPLACE INTO deliveries (name, outbox, progress, paused) VALUES (?, ?, ?, ?)",
                (name, kept.outbox, _encode(kept.progress), kept.paused),
            )
            for letter in dead:
                database.execute(
                    "REPLACE INTO dead_letters (delivery, event_id, kind, died_at, attempts, "
                    "error) VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        name,
                        letter.event_id,
                        letter.kind,
                        letter.died_at,
                        letter.attempts,
                        letter.error,
                    ),
                )
            database.executemany(
                "DELETE FROM dead_letters WHERE delivery = ? AND event_id = ?",
                [(name, event_id) for event_id in delivered],
            )
            database.execute(FORGET_DEAD, (name, MAXIMUM_DEAD))

    def dead_letters(self, name: str) -> list[StoredDeadLetter]:
        """Return the dead letters of a webhook or sink, latest first."""
        with self._database.transaction() as database:
            rows = database.execute(
                "SELECT event_id, kind, died_at, attempts, error FROM dead_letters "
                "WHERE delivery = ? ORDER BY died_at DESC, rowid DESC",
                (name,),
            ).fetchall()
        return [StoredDeadLetter(*row) for row in rows]

    def count_dead(self, name: str) -> int:
        with self._database.transaction() as database:
            query = "SELECT count(*) FROM dead_letters WHERE delivery = ?"
            found: int = database.execute(query, (name,)).fetchone()[0]
        return found


def _encode(progress: Progress) -> str:
    """Return what outlives the process; what is in flight is tried again."""
    return json.dumps(
        {
            "reached": progress.reached,
            "open": sorted(progress.open),
            "troubles": {chat: asdict(one) for chat, one in progress.troubles.items()},
            "gone": progress.gone,
        }
    )


def _decode(name: str, text: str) -> Progress:
    """Return what is stored. If it cannot be read, everything is told again."""
    try:
        stored: Mapping[str, Any] = json.loads(text)
        return Progress(
            reached=stored["reached"],
            open=frozenset(stored["open"]),
            troubles={chat: Trouble(**one) for chat, one in stored["troubles"].items()},
            gone=stored["gone"],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning(
            "cannot read how far a delivery has come; delivering everything again",
            extra={"delivery": name},
        )
        return Progress(0)
