"""The session's state, and what a decision about it consists of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import (
    Account,
    AuthState,
    LastDisconnect,
    PairingMethod,
    Phase,
    Reason,
    Takeover,
)

from wasession_pod.state.memory_pressure import Memory
from wasession_pod.state.recovery import Backoff, Outage, Step


class Action(Enum):
    """What the session loop should do, besides the ``Step`` of a recovery."""

    RECYCLE_PAGE = auto()  # replace the page, which makes Chromium write the login to disk
    RECORD_LOGIN = auto()  # record on the volume that its login is valid
    CONFIRM_REPAIR = auto()  # the profile that replaced a damaged one has a working login
    QUARANTINE_PROFILE = auto()  # move the profile of an ended login away and start an empty one
    FALL_BACK = auto()  # quarantine a damaged profile; restore the last snapshot or start empty
    RENEW_CODE = auto()
    FETCH_CODE = auto()
    TAKE_OVER = auto()
    STAND_DOWN = auto()  # stop the browser: another one has the login


@dataclass(frozen=True)
class Policy:
    """The settings that decisions depend on."""

    initialization_timeout: timedelta
    max_rounds: int
    method: PairingMethod
    takeover: Takeover
    backoff: Backoff
    pinned: bool = False  # whether a pinned document replaces WhatsApp Web's own


@dataclass(frozen=True)
class State:
    """Everything that carries over from one observation to the next."""

    phase: Phase
    reason: str
    message: str = ""

    # The login.
    session_valid: bool | None = None  # None until the volume has been read
    had_login: bool = False  # at process start the volume held a login, or should have
    restored: bool = False
    login_written: bool = False  # this page has written its login to disk
    write_failures: int = 0  # attempts in a row after which the login was not on disk
    next_write_at: datetime | None = None
    new_login: bool = False  # the page has, or will have, another login than the recorded one
    logout_reason: str | None = None  # the first of the two signals that prove a logout
    logout_requested: bool = False
    account: Account | None = None
    recorded_account: str | None = None  # the id that the volume's login was recorded with
    phone_last_seen: datetime | None = None

    # The profile and the volume.
    can_fall_back: bool = False  # another profile can be tried if this one loses its login
    login_missing_since: datetime | None = None  # the page shows a QR, the volume holds a login
    repair_unconfirmed: bool = False  # a replaced profile has not been Ready yet
    repair_message: str | None = None  # how a damaged profile was replaced
    volume_warning: Notice | None = None
    outbox_warning: Notice | None = None

    launch_file_changes: tuple[Notice, ...] = ()  # since the browser was started

    # The page and its connection.
    auth_state: AuthState | None = None
    is_authenticated: bool = False
    whatsapp_web_version: str | None = None
    needs_update: bool = False  # WhatsApp wants a newer version of the page
    waiting_since: datetime | None = None  # for a page that is being opened
    syncing_since: datetime | None = None  # or since its last progress
    sync_progress: float | None = None
    healthy_since: datetime | None = None
    unheard: tuple[str, ...] = ()  # what the page lacks to hear and send messages
    unheard_since: datetime | None = None
    page_reloads: tuple[datetime, ...] = ()  # recent ones, by the page itself
    ready_since: datetime | None = None
    blocked_since: datetime | None = None  # or since the last reload of a page WhatsApp has blocked
    blocked_reloads: int = 0  # of a page whose version may be replaced
    outage: Outage | None = None
    last_connected: datetime | None = None
    last_disconnect: LastDisconnect | None = None
    takeovers: int = 0  # of this outage
    taken_over_at: tuple[datetime, ...] = ()  # the last ones
    stood_down: bool = False  # until a person says so, no browser runs: another one has the login

    # Link codes.
    round: int = 0
    rounds_exhausted: bool = False
    code_shown: bool = False  # since this process started
    code_expires_at: datetime | None = None
    code_failures: int = 0
    next_code_at: datetime | None = None
    renewing_code: bool = False

    # Memory.
    memory: Memory | None = None
    recycled_at: datetime | None = None  # for lack of memory
    restarted_at: datetime | None = None  # for lack of memory


Decision = tuple[State, list[Action | Step]]


def initial(
    *,
    has_login: bool | None,
    restoring: bool,
    now: datetime,
    account: str | None = None,
    phone_last_seen: datetime | None = None,
) -> State:
    """Return the state of a process that has just started.

    ``has_login`` is None before the volume has been read. ``account`` is the id that the
    volume's login was recorded with.
    """
    if has_login or restoring:
        return State(
            Phase.RESTORING,
            Reason.LOGIN_RESTORING,
            "Opening WhatsApp Web with the stored login.",
            session_valid=has_login,
            had_login=True,
            waiting_since=now,
            phone_last_seen=phone_last_seen,
            recorded_account=account,
        )
    return State(
        Phase.STARTING,
        Reason.BROWSER_STARTING,
        "Opening WhatsApp Web.",
        session_valid=has_login,
        waiting_since=now,
    )
