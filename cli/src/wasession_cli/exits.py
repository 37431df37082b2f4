"""How a command ends: exit codes, and failures with a message for the user."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. Stable: scripts may compare with them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_READY = 4
    FORBIDDEN = 5
    INTERRUPTED = 130


class Failure(Exception):
    """The command failed. ``hint`` is another line on how to go on."""

    code = Exit.ERROR

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Invalid(Failure):
    """An argument is invalid."""

    code = Exit.USAGE


class NotFound(Failure):
    """The session, backup, chat or message does not exist."""

    code = Exit.NOT_FOUND


class Conflict(Failure):
    """The object exists already, or has changed since it was read."""


class NotReady(Failure):
    """The session is not ready for the command, or was not in time."""

    code = Exit.NOT_READY


class Unreachable(NotReady):
    """The session pod does not answer: it is starting, stopping or gone. A retry may help."""


class Forbidden(Failure):
    """The user is not allowed to do this."""

    code = Exit.FORBIDDEN
