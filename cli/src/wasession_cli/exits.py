"""How a command ends: its exit code and, when something went wrong, a sentence that says what to do."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. Stable: scripts compare with them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_READY = 4
    FORBIDDEN = 5
    INTERRUPTED = 130


class Failure(Exception):
    """The command cannot do what it was asked for. ``hint`` is a further line on how to go on."""

    code = Exit.ERROR

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotFound(Failure):
    code = Exit.NOT_FOUND


class NotReady(Failure):
    """The session is not as far as the command needs it, or did not get there in time."""

    code = Exit.NOT_READY


class Unreachable(NotReady):
    """The session pod does not answer: it is starting, stopping or gone. Worth another try."""


class Forbidden(Failure):
    code = Exit.FORBIDDEN
