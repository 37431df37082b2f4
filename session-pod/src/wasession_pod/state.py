"""What the session is, decided from what was seen: pure, without clock, browser or disk.

``step`` takes the state, one observation and the time, and gives the next state and what should be done. The session loop
(``session.py``) makes the observations and does the actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from wasession_api.report import Report
from wasession_api.v1alpha1 import (
    Account,
    AuthState,
    DisconnectKind,
    LastDisconnect,
    LastShutdown,
    PairingMethod,
    PairingStatus,
    Phase,
    Reason,
    Takeover,
)

from wasession_pod.snapshot import Snapshot

STABLE = timedelta(seconds=1)  # a session must be good for this long before it is called Ready
TAKEOVER_EVERY = timedelta(hours=1)  # how often takeover Once may take the session back


class Action(Enum):
    """What the session loop should do."""

    RECYCLE = auto()  # change to a fresh page, so that Chromium writes the login
    KEEP_LOGIN = auto()  # note on the volume that its login is valid
    SET_ASIDE = auto()  # move the profile of an ended login away and start with a new one
    RESTART_BROWSER = auto()
    RENEW_CODE = auto()
    FETCH_CODE = auto()
    TAKE_OVER = auto()


@dataclass(frozen=True)
class Policy:
    """What the settings say."""

    initialization: timedelta
    max_rounds: int
    method: PairingMethod
    takeover: Takeover


@dataclass(frozen=True)
class State:
    """Everything that is remembered between two observations."""

    phase: Phase
    reason: str
    message: str = ""
    session_valid: bool = False
    had_login: bool = False  # the volume held a login, or should have, when this process started
    code_shown: bool = False  # a QR or pairing code has been shown in this process
    restored: bool = False
    durable: bool = False  # this page has written the login
    logout_reason: str | None = None  # first signal of a logout
    good_since: datetime | None = None
    waiting_since: datetime | None = None  # for a page that shows something
    auth_state: AuthState | None = None
    is_authenticated: bool = False
    last_connected: datetime | None = None
    last_disconnect: LastDisconnect | None = None
    account: Account | None = None
    whatsapp_web_version: str | None = None
    round: int = 0
    code_expires_at: datetime | None = None
    renewing: bool = False
    taken_over_at: datetime | None = None


def initial(*, has_login: bool, restoring: bool, now: datetime) -> State:
    """The state of a process that has just started."""
    if has_login or restoring:
        words = "Opening WhatsApp Web with the stored login."
        return State(Phase.RESTORING, Reason.LOGIN_RESTORING, words, session_valid=has_login, had_login=True, waiting_since=now)
    return State(Phase.STARTING, Reason.BROWSER_STARTING, "Opening WhatsApp Web.", waiting_since=now)


def report(state: State, *, client_id: str, session_uid: str | None, started_at: datetime, seq: int,
           last_shutdown: LastShutdown | None, method: PairingMethod, sandboxed: bool | None) -> Report:  # fmt: skip
    """The state as others see it."""
    pairing = None
    if state.phase is Phase.AUTHENTICATING:
        pairing = PairingStatus(
            available=state.code_expires_at is not None,
            method=method,
            attempt=state.round,
            expires_at=state.code_expires_at,
        )
    return Report(
        client_id=client_id,
        session_uid=session_uid,
        started_at=started_at,
        seq=seq,
        phase=state.phase,
        reason=state.reason,
        message=state.message,
        auth_state=state.auth_state,
        is_authenticated=state.is_authenticated,
        session_valid=state.session_valid,
        last_connected=state.last_connected,
        last_disconnect=state.last_disconnect,
        restored=state.restored,
        account=state.account,
        whatsapp_web_version=state.whatsapp_web_version,
        pairing=pairing,
        last_shutdown=last_shutdown,
        sandboxed=sandboxed,
    )


# --- observations -----------------------------------------------------------------------------------------------------


def browser_started(state: State, now: datetime) -> State:
    """A browser is up with a page that has yet to show something."""
    return replace(state, waiting_since=now, good_since=None, logout_reason=None, durable=state.session_valid, renewing=False)


def unreachable(state: State, error: str, now: datetime) -> State:
    """WhatsApp Web can't be opened."""
    phase = Phase.RESTORING if state.session_valid else Phase.STARTING
    return replace(
        _disconnected(state, DisconnectKind.CONNECTION, Reason.WHATSAPP_UNREACHABLE, now),
        phase=phase,
        reason=Reason.WHATSAPP_UNREACHABLE,
        message=f"WhatsApp Web cannot be opened: {error}. It is tried again.",
        waiting_since=None,
    )


def browser_gone(state: State, reason: str, message: str, now: datetime) -> State:
    """The page or the browser has crashed, or could not be started."""
    return replace(
        _disconnected(state, DisconnectKind.CRASH, reason, now),
        phase=Phase.RESTORING if state.session_valid else Phase.STARTING,
        reason=reason,
        message=message,
    )


def volume_unusable(state: State, reason: str, message: str) -> State:
    return replace(state, phase=Phase.FAILED, reason=reason, message=message)


def logout_signal(state: State, reason: str | None) -> State:
    """The page says that it is being logged out: the first of the two signals that prove a logout."""
    return replace(state, logout_reason=reason or state.logout_reason or "logout")


def code_offered(state: State, expires_at: datetime) -> State:
    """A code is there for a phone to use."""
    first = state.round == 0 or state.renewing
    reason, message = Reason.WAITING_FOR_SCAN, "Waiting for a phone to be linked."
    if state.had_login:
        reason, message = Reason.RESTORATION_FAILED, "WhatsApp Web did not accept the stored login. " + message
    return replace(
        state,
        phase=Phase.AUTHENTICATING,
        reason=reason,
        message=message,
        round=state.round + 1 if first else state.round,
        renewing=False,
        code_shown=True,
        code_expires_at=expires_at,
        waiting_since=None,
    )


def restarting(state: State) -> State:
    """Somebody asked for a restart of the browser."""
    phase = Phase.RESTORING if state.session_valid else Phase.STARTING
    return replace(state, phase=phase, reason=Reason.BROWSER_STARTING, message="The browser is restarted.", good_since=None)


def not_durable(state: State) -> State:
    """The login has not been written: the page has to be changed again before the session is Ready."""
    return replace(state, durable=False)


def first_round(state: State) -> State:
    """Somebody asked for a new code: the rounds are counted anew."""
    return replace(state, phase=Phase.STARTING, reason=Reason.PAGE_LOADING, message="", round=0, renewing=True)


def step(state: State, seen: Snapshot | None, now: datetime, policy: Policy) -> tuple[State, list[Action]]:
    """The next state after a look at the page; None is a page that could not say anything."""
    if seen is None or not seen.injected or seen.registered is None:
        return _waiting(state, now, policy)
    state = _facts(state, seen)
    if seen.registered:
        return _linked(state, seen, now, policy)
    return _not_linked(state, seen, now, policy)


# --- the parts of step ------------------------------------------------------------------------------------------------


def _waiting(state: State, now: datetime, policy: Policy) -> tuple[State, list[Action]]:
    """The page says nothing: unknown, never "logged out"."""
    if state.waiting_since is None or now - state.waiting_since < policy.initialization:
        return replace(state, good_since=None), []
    seconds = int(policy.initialization.total_seconds())
    message = f"WhatsApp Web showed nothing within {seconds} s. The browser is restarted."
    return browser_gone(state, Reason.INITIALIZATION_TIMEOUT, message, now), [Action.RESTART_BROWSER]


def _facts(state: State, seen: Snapshot) -> State:
    known = seen.socket_state in AuthState.__members__
    return replace(
        state,
        auth_state=AuthState(seen.socket_state) if known and seen.socket_state else state.auth_state,
        is_authenticated=seen.authenticated is True,
        whatsapp_web_version=(seen.wa_version or state.whatsapp_web_version or "")[:64] or None,
    )


def _not_linked(state: State, seen: Snapshot, now: datetime, policy: Policy) -> tuple[State, list[Action]]:
    state = replace(state, good_since=None)
    if state.logout_reason is not None:  # second signal: a live page that has no login any more
        ended = replace(
            state,
            phase=Phase.LOGGED_OUT,
            reason=Reason.LOGGED_OUT_BY_PHONE,
            message="WhatsApp has ended this login. Its files were moved aside.",
            session_valid=False,
            had_login=False,
            restored=False,
            durable=False,
            logout_reason=None,
            account=None,
            is_authenticated=False,
            round=0,
            code_expires_at=None,
            last_disconnect=LastDisconnect(at=now, kind=DisconnectKind.LOGOUT, reason=state.logout_reason),
        )
        return ended, [Action.SET_ASIDE]
    if seen.passkey_required:
        words = "WhatsApp wants the account's passkey before it links this device: confirm it on the phone."
        state = replace(state, phase=Phase.PASSKEY_REQUIRED, reason=Reason.PASSKEY_REQUIRED, message=words)
        return replace(state, code_expires_at=None, waiting_since=None), []
    if state.phase is Phase.FAILED and state.reason == Reason.PAIRING_EXPIRED:
        return state, []
    # The page changes its QR by itself, until it has used up all it has; a pairing code simply expires.
    expired = state.code_expires_at is not None and state.code_expires_at < now
    if seen.socket_state == "UNPAIRED_IDLE" or (expired and policy.method is PairingMethod.PAIRING_CODE):
        if state.renewing:
            return state, []
        if state.round >= policy.max_rounds:
            message = f"No phone was linked in {state.round} rounds. Restart the session to try again."
            return replace(state, phase=Phase.FAILED, reason=Reason.PAIRING_EXPIRED, message=message, code_expires_at=None), []
        return replace(state, renewing=True, code_expires_at=None), [Action.RENEW_CODE]
    if seen.mode == "QR" and seen.socket_state == "UNPAIRED":
        return state, [Action.FETCH_CODE]
    return _waiting(state, now, policy)


def _linked(state: State, seen: Snapshot, now: datetime, policy: Policy) -> tuple[State, list[Action]]:
    if seen.good:
        return _good(state, seen, now)
    state = replace(state, good_since=None, code_expires_at=None)
    blocked = {
        "PROXYBLOCK": (Reason.PROXY_BLOCKED, "WhatsApp refuses the network that this session comes from."),
        "TOS_BLOCK": (Reason.ACCOUNT_BLOCKED, "WhatsApp has blocked the account for its terms of service."),
        "SMB_TOS_BLOCK": (Reason.ACCOUNT_BLOCKED, "WhatsApp has blocked the business account for its terms of service."),
        "DEPRECATED_VERSION": (Reason.VERSION_REFUSED, "WhatsApp Web wants a newer version of itself."),
    }
    match seen.socket_state:
        case "CONFLICT":
            return _conflict(state, now, policy)
        case "PROXYBLOCK" | "TOS_BLOCK" | "SMB_TOS_BLOCK" | "DEPRECATED_VERSION" as word:
            reason, message = blocked[word]
            state = _disconnected(state, DisconnectKind.CONNECTION, word, now)
            return replace(state, phase=Phase.FAILED, reason=reason, message=message), []
        case "PAIRING":
            return replace(state, phase=Phase.SYNCING, reason=Reason.MESSAGES_SYNCING, message="A phone is being linked."), []
    if state.phase in (Phase.READY, Phase.RECONNECTING, Phase.CONFLICT, Phase.FAILED):
        state = _disconnected(state, DisconnectKind.CONNECTION, seen.info or "OPENING", now)
        words = "WhatsApp Web has lost its connection and connects again."
        return replace(state, phase=Phase.RECONNECTING, reason=Reason.CONNECTION_LOST, message=words), []
    if state.session_valid:
        words = "Opening WhatsApp Web with the stored login."
        return _waiting(replace(state, phase=Phase.RESTORING, reason=Reason.LOGIN_RESTORING, message=words), now, policy)
    words = "WhatsApp Web loads the account's messages."
    return replace(state, phase=Phase.SYNCING, reason=Reason.MESSAGES_SYNCING, message=words), []


def _good(state: State, seen: Snapshot, now: datetime) -> tuple[State, list[Action]]:
    account = Account(id=(seen.me or "")[:128], push_name=seen.push_name, platform=(seen.platform or "")[:64] or None)
    state = replace(state, account=account, code_expires_at=None, waiting_since=None, logout_reason=None)
    if state.good_since is None:
        state = replace(state, good_since=now)
    if state.phase is Phase.READY:
        return state, []
    if state.good_since is not None and now - state.good_since < STABLE:
        return state, []
    if not state.durable:
        words = "The login is being written to the volume."
        pending = replace(state, phase=Phase.SYNCING, reason=Reason.LOGIN_WRITING, message=words, durable=True, good_since=None)
        return replace(pending, waiting_since=now), [Action.RECYCLE]
    actions = [] if state.session_valid else [Action.KEEP_LOGIN]
    ready = replace(
        state,
        phase=Phase.READY,
        reason=Reason.CONNECTED,
        message="",
        session_valid=True,
        restored=state.had_login and not state.code_shown,
        last_connected=now,
        round=0,
    )
    return ready, actions


def _conflict(state: State, now: datetime, policy: Policy) -> tuple[State, list[Action]]:
    state = _disconnected(state, DisconnectKind.CONFLICT, "CONFLICT", now)
    words = "WhatsApp Web is open elsewhere with this login."
    state = replace(state, phase=Phase.CONFLICT, reason=Reason.OPENED_ELSEWHERE, message=words)
    lately = state.taken_over_at is not None and now - state.taken_over_at < TAKEOVER_EVERY
    if policy.takeover is Takeover.NEVER or (policy.takeover is Takeover.ONCE and lately):
        return state, []
    return replace(state, taken_over_at=now), [Action.TAKE_OVER]


def _disconnected(state: State, kind: DisconnectKind, reason: str, now: datetime) -> State:
    """Notes the moment at which a Ready session lost WhatsApp; anything else was not connected anyway."""
    if state.phase is not Phase.READY:
        return state
    return replace(state, last_disconnect=LastDisconnect(at=now, kind=kind, reason=reason[:256]), good_since=None)
