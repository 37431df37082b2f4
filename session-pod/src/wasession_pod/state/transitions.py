"""What the session is, decided from what was seen: pure, without clock, browser or disk.

``step`` takes the state, one look at the page and the time, and gives the next state and what
should be done. The session loop (``session.py``) makes the observations and does the actions. How a
lost session is brought back is in ``recovery``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from wasession_api.base import rfc3339
from wasession_api.session_pod.report import Notice, Report
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

from wasession_pod.state.memory_pressure import Memory, Relief, low, relief
from wasession_pod.state.observation import PageObservation, PageUnavailable
from wasession_pod.state.recovery import RESET_AFTER, Backoff, Outage, Step, taken, trouble

STABLE = timedelta(seconds=0.3)  # a session must be good for this long before it is called Ready
MISSING_FOR = timedelta(
    seconds=5
)  # a page without the login that the volume holds must show its QR for this long
TAKEOVER_EVERY = timedelta(hours=1)  # how often takeover Once may take the session back
STOPPED_EVERY = timedelta(hours=1)  # how often a page that WhatsApp has stopped is opened anew
CODE_LATE = timedelta(
    seconds=30
)  # a QR that the page has not changed for this long after its end is stuck
SYNCING_LIMIT = timedelta(
    minutes=15
)  # a login that loads its messages for longer than this is stuck
# WhatsApp's help: linked devices are logged out when the phone wasn't used for over 14 days.
PHONE_WARNING, PHONE_LIMIT = timedelta(days=10), timedelta(days=14)
PHONE_SEEN_EVERY = timedelta(hours=1)  # a later sign of life within this is not news

# Socket states at which the page stops by itself.
STOPPED = {
    "PROXYBLOCK": (
        Reason.PROXY_BLOCKED,
        "WhatsApp refuses the network that this session comes from.",
    ),
    "TOS_BLOCK": (
        Reason.ACCOUNT_BLOCKED,
        "WhatsApp has blocked the account for its terms of service.",
    ),
    "SMB_TOS_BLOCK": (
        Reason.ACCOUNT_BLOCKED,
        "WhatsApp has blocked the business account for its terms of service.",
    ),
}
NEEDS_BROWSER = {Step.START, Step.RESTART, Step.EXIT}
WORKING = {
    "CONNECTED",
    "PAIRING",
    "UNPAIRED",
    "UNPAIRED_IDLE",
}  # a newer version may be wanted, but this one is served
# Words for a logout that WhatsApp or the account's owner has spoken (LogoutReason of wa-js 4.6.0;
# WAWebHandleFailure has none for 401 and 406). All other words are the page's own: it has dropped a
# login that the server may still know.
LOGOUT = "logout"
ENDED_BY_WHATSAPP = {
    LOGOUT, "user_initiated", "unknown_companion", "account_locked", "primary_identity_key_change", "invalid_adv_status",
    "md_opt_out",
}  # fmt: skip


class Action(Enum):
    """What the session loop should do, besides a ``Step`` of a recovery."""

    RECYCLE = auto()  # change to a fresh page, so that Chromium writes the login
    KEEP_LOGIN = auto()  # note on the volume that it holds a login that is valid
    END_TRIAL = auto()  # the login of a profile that replaces a damaged one is good
    SET_ASIDE = auto()  # move the profile of an ended login away and start with a new one
    FALL_BACK = auto()  # move a damaged profile away and start with the last good one, or a new one
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
    backoff: Backoff


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
    another_login: bool = False  # what the page has, or will have, is not the login that was kept
    can_fall_back: bool = (
        False  # another profile can be tried when the present one has lost its login
    )
    missing_since: datetime | None = (
        None  # the page has shown a QR although the volume holds a login
    )
    on_trial: bool = False  # the profile has replaced a damaged one, and has not been Ready yet
    profile_notice: str | None = None  # what was done about the damaged one
    volume_notice: Notice | None = None
    logout_reason: str | None = None  # first signal of a logout
    logout_requested: bool = False
    good_since: datetime | None = None
    ready_since: datetime | None = None
    waiting_since: datetime | None = None  # for a page that shows something
    syncing_since: datetime | None = None
    stopped_at: datetime | None = (
        None  # WhatsApp has stopped the page; when it was opened anew the last time
    )
    outage: Outage | None = None
    auth_state: AuthState | None = None
    is_authenticated: bool = False
    last_connected: datetime | None = None
    last_disconnect: LastDisconnect | None = None
    account: Account | None = None
    phone_last_seen: datetime | None = None
    whatsapp_web_version: str | None = None
    round: int = 0
    rounds_over: bool = False
    code_expires_at: datetime | None = None
    code_refusals: int = 0
    next_code_at: datetime | None = None
    renewing: bool = False
    takeovers: int = 0
    taken_over_at: datetime | None = None
    memory: Memory | None = None
    relieved_at: datetime | None = None  # by a fresh page
    restarted_at: datetime | None = None  # by another browser


Decision = tuple[State, list[Action | Step]]


def initial(
    *, has_login: bool, restoring: bool, now: datetime, phone_last_seen: datetime | None = None
) -> State:
    """The state of a process that has just started."""
    if has_login or restoring:
        return State(
            Phase.RESTORING,
            Reason.LOGIN_RESTORING,
            "Opening WhatsApp Web with the stored login.",
            session_valid=has_login,
            had_login=True,
            waiting_since=now,
            phone_last_seen=phone_last_seen,
        )
    return State(
        Phase.STARTING, Reason.BROWSER_STARTING, "Opening WhatsApp Web.", waiting_since=now
    )


def report(state: State, *, client_id: str, session_uid: str | None, started_at: datetime, seq: int, now: datetime,
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
        phone_last_seen=state.phone_last_seen,
        warnings=warnings(state, now),
    )


def warnings(state: State, now: datetime) -> list[Notice]:
    """What will end in trouble if nobody looks after it."""
    found = []
    if (
        state.session_valid
        and state.phone_last_seen is not None
        and now - state.phone_last_seen >= PHONE_WARNING
    ):
        days = (now - state.phone_last_seen).days
        words = f"The account's phone was last seen {days} days ago; after {PHONE_LIMIT.days} WhatsApp logs this device out."
        found.append(
            Notice(reason=Reason.PHONE_OFFLINE, message=words + " Open WhatsApp on the phone.")
        )
    if state.memory is not None and low(state.memory, state.relieved_at, now):
        words = f"The session needs nearly all of its {state.memory.limit // 2**20} MiB of memory. Give it a higher limit."
        found.append(Notice(reason=Reason.MEMORY_LOW, message=words))
    if state.profile_notice is not None:
        found.append(Notice(reason=Reason.PROFILE_DAMAGED, message=state.profile_notice))
    if state.volume_notice is not None:
        found.append(state.volume_notice)
    return found


# --- observations ---------------------------------------------------------------------------------


def page_opening(state: State, now: datetime) -> State:
    """A page is up that has yet to show something."""
    return replace(
        state,
        waiting_since=now,
        good_since=None,
        syncing_since=None,
        durable=state.session_valid and not state.another_login,
        missing_since=None,
        renewing=False,
        code_expires_at=None,
        outage=state.outage and replace(state.outage, due=None),
    )


def unreachable(state: State, reason: str, error: str, now: datetime, policy: Policy) -> State:
    """WhatsApp Web can't be opened."""
    state = _disconnected(state, DisconnectKind.CONNECTION, reason, now)
    return replace(
        state,
        phase=_opening(state),
        reason=reason,
        message=f"WhatsApp Web cannot be opened: {error}. It is tried again.",
        waiting_since=None,
        outage=trouble(state.outage, reason, Step.OPEN, now, policy.backoff),
    )


def failed(
    state: State, reason: str, message: str, step: Step, now: datetime, policy: Policy
) -> State:
    """The page or the browser has crashed, hangs, or could not be started; ``step`` is what it takes at least."""
    state = _disconnected(state, DisconnectKind.CRASH, reason, now)
    return replace(
        state,
        phase=_opening(state),
        reason=reason,
        message=message,
        auth_state=None,
        is_authenticated=False,
        code_expires_at=None,
        good_since=None,
        waiting_since=None,
        outage=trouble(state.outage, reason, step, now, policy.backoff),
    )


def volume_unusable(
    state: State, reason: str, message: str, now: datetime, policy: Policy
) -> State:
    outage = trouble(state.outage, reason, Step.START, now, policy.backoff)
    return replace(
        state, phase=Phase.FAILED, reason=reason, message=message, waiting_since=None, outage=outage
    )


def volume_watched(state: State, notice: Notice | None) -> State:
    """The volume can be used; ``notice`` says for how long it may be."""
    return replace(state, volume_notice=notice)


def profile_known(state: State, repair: str | None, *, can_fall_back: bool) -> State:
    """What profile the browser will have: the one it had, or one that replaces a damaged one, as ``repair`` says."""
    state = replace(state, can_fall_back=state.session_valid and can_fall_back, missing_since=None)
    if repair is None:
        return state
    state = replace(state, phase=_opening(state), reason=Reason.PROFILE_DAMAGED, message=repair)
    return replace(state, on_trial=True, profile_notice=repair)


def logout_signal(state: State, reason: str | None) -> State:
    """The page says that it is being logged out: the first of the two signals that prove a logout."""
    known = state.logout_reason if state.logout_reason not in (None, LOGOUT) else None
    return replace(state, logout_reason=known or reason or LOGOUT)


def logout_requested(state: State, asked: bool) -> State:
    """Somebody asked for a logout, or has given up waiting for it."""
    return replace(state, logout_requested=asked)


def phone_seen(state: State, at: datetime) -> State:
    """A sign of life of the account's phone; one soon after the last is no news."""
    if state.phone_last_seen is not None and at < state.phone_last_seen + PHONE_SEEN_EVERY:
        return state
    return replace(state, phone_last_seen=at)


def memory_seen(state: State, memory: Memory | None) -> State:
    """What is used of the memory that may be; None where nothing limits it."""
    return replace(state, memory=memory)


def code_offered(state: State, expires_at: datetime, policy: Policy) -> State:
    """A code is there for a phone to use."""
    first = state.round == 0 or state.renewing
    reason, message = Reason.WAITING_FOR_SCAN, "Waiting for a phone to scan the QR."
    if policy.method is PairingMethod.PAIRING_CODE:
        reason, message = (
            Reason.WAITING_FOR_PAIRING_CODE,
            "Waiting for the pairing code to be typed on the phone.",
        )
    if state.session_valid:
        reason, message = (
            Reason.RESTORATION_FAILED,
            "WhatsApp Web did not accept the stored login. " + message,
        )
    elif state.had_login:
        reason, message = (
            Reason.LOGIN_MISSING,
            "The volume should hold a login and does not. " + message,
        )
    return replace(
        state,
        phase=Phase.AUTHENTICATING,
        reason=reason,
        message=message,
        round=state.round + 1 if first else state.round,
        renewing=False,
        code_shown=True,
        another_login=True,
        durable=False,
        code_expires_at=expires_at,
        code_refusals=0,
        next_code_at=None,
        waiting_since=None,
        stopped_at=None,
    )


def code_refused(state: State, error: str, now: datetime, policy: Policy) -> State:
    """The page gives no code; it is asked again later, less and less often."""
    return replace(
        state,
        message=f"WhatsApp Web gives no code: {error}. It is asked again.",
        code_refusals=state.code_refusals + 1,
        next_code_at=now + policy.backoff.delay(state.code_refusals),
        waiting_since=None,
    )


def restarting(state: State) -> State:
    """Somebody asked for a restart of the browser."""
    message = "The browser is restarted."
    return replace(
        state,
        phase=_opening(state),
        reason=Reason.BROWSER_STARTING,
        message=message,
        good_since=None,
    )


def not_durable(state: State) -> State:
    """The login has not been written: the page has to be changed again before the session is Ready."""
    return replace(state, durable=False)


def first_round(state: State) -> State:
    """Somebody asked for a new code: the rounds are counted anew."""
    return replace(
        state,
        phase=Phase.STARTING,
        reason=Reason.PAGE_LOADING,
        message="",
        round=0,
        rounds_over=False,
        renewing=True,
        code_expires_at=None,
        next_code_at=None,
    )


def browser_due(state: State, now: datetime) -> bool:
    """Whether another browser is due, so that the present one need not be asked any more."""
    outage = state.outage
    due = outage is not None and outage.due is not None and outage.due <= now
    return due and outage is not None and outage.step in NEEDS_BROWSER


def mended_itself(before: State, after: State) -> bool:
    """Whether the page has come back before anything was done about it."""
    planned, left = before.outage, after.outage
    if planned is None or planned.due is None or left is None or left.due is not None:
        return False
    return after.good_since is not None and planned.tries == left.tries


def step(
    state: State, seen: PageObservation | PageUnavailable, now: datetime, policy: Policy
) -> Decision:
    """The next state after a look at the page, and what to do."""
    if not (isinstance(seen, PageObservation) and seen.mode == "QR"):
        state = replace(state, missing_since=None)
    state, actions = _judge(state, seen, now, policy)
    outage = state.outage
    if outage is not None and outage.due is not None and outage.due <= now and not actions:
        return replace(state, outage=taken(outage)), [outage.step]
    return state, actions


def relieve(state: State, now: datetime, *, busy: bool) -> Decision:
    """What to do about memory that runs out: nothing while a message is under way, or without a connection that could wait."""
    if state.memory is None or state.phase is not Phase.READY or busy:
        return state, []
    needed = relief(state.memory, state.relieved_at, state.restarted_at, now)
    if needed is None:
        return state, []
    state = _disconnected(state, DisconnectKind.CONNECTION, Reason.MEMORY_LOW, now)
    what = "page" if needed is Relief.RECYCLE else "browser"
    words = f"Memory runs out: the {what} is changed for a fresh one."
    state = replace(
        state, phase=Phase.RECONNECTING, reason=Reason.MEMORY_LOW, message=words, waiting_since=now
    )
    if needed is Relief.RECYCLE:
        return replace(state, relieved_at=now), [Action.RECYCLE]
    return replace(state, restarted_at=now), [Step.RESTART]


# --- the parts of step ----------------------------------------------------------------------------


def _judge(
    state: State, seen: PageObservation | PageUnavailable, now: datetime, policy: Policy
) -> Decision:
    if isinstance(seen, PageUnavailable):
        return _silent(state, seen, now, policy), []
    if not seen.injected or seen.registered is None:
        return _not_understood(state, now, policy)
    state = _facts(state, seen)
    if seen.good:
        return _good(state, seen, now)
    state = replace(state, good_since=None, ready_since=None)
    if seen.socket_state in STOPPED:
        reason, message = STOPPED[seen.socket_state]
        return _stopped(state, reason, message, now)
    if seen.socket_state == "DEPRECATED_VERSION" or (
        seen.needs_update and seen.socket_state not in WORKING
    ):
        return _stopped(
            state,
            Reason.VERSION_REFUSED,
            "WhatsApp refuses this version of WhatsApp Web.",
            now,
            at_once=True,
        )
    banned_until = _moment(seen.banned_until)
    if banned_until is not None and now < banned_until:
        words = f"WhatsApp has banned the account until {rfc3339(banned_until)}."
        return _blocked(state, Reason.ACCOUNT_BANNED, words, now), []
    if seen.registered:
        return _linked(state, seen, now, policy)
    return _not_linked(state, seen, now, policy)


def _facts(state: State, seen: PageObservation) -> State:
    known = seen.socket_state in AuthState.__members__
    return replace(
        state,
        auth_state=AuthState(seen.socket_state)
        if known and seen.socket_state
        else state.auth_state,
        is_authenticated=seen.authenticated is True,
        whatsapp_web_version=(seen.wa_version or state.whatsapp_web_version or "")[:64] or None,
    )


def _silent(state: State, silence: PageUnavailable, now: datetime, policy: Policy) -> State:
    """The page says nothing: unknown, never "logged out"."""
    coming = (
        state.outage.step if state.outage is not None and state.outage.due is not None else None
    )
    if silence is PageUnavailable.CLOSED:
        if coming in NEEDS_BROWSER:
            return state
        return failed(
            state,
            Reason.BROWSER_CRASHED,
            "The browser has ended. It is started again.",
            Step.RESTART,
            now,
            policy,
        )
    if silence is PageUnavailable.HUNG and state.waiting_since is None:
        words = "The page does not answer. It is opened anew."
        return failed(state, Reason.PAGE_HUNG, words, Step.RELOAD, now, policy)
    return state if coming is not None else _in_time(_loading(state, now), now, policy)


def _loading(state: State, now: datetime) -> State:
    """The page is between two documents; it may have gone to the next one by itself."""
    state = replace(state, good_since=None, waiting_since=state.waiting_since or now)
    if state.phase is not Phase.READY:
        return state
    state = _disconnected(state, DisconnectKind.CONNECTION, Reason.PAGE_LOADING, now)
    return replace(
        state,
        phase=Phase.RECONNECTING,
        reason=Reason.PAGE_LOADING,
        message="WhatsApp Web is loading its page.",
    )


def _late(state: State, now: datetime, policy: Policy) -> bool:
    return state.waiting_since is not None and now - state.waiting_since >= policy.initialization


def _in_time(state: State, now: datetime, policy: Policy) -> State:
    """Waits for a page that has just been opened, up to the limit for that."""
    if not _late(state, now, policy):
        return state
    seconds = int(policy.initialization.total_seconds())
    words = f"WhatsApp Web showed neither a code nor a login within {seconds} s."
    return failed(state, Reason.INITIALIZATION_TIMEOUT, words, Step.RELOAD, now, policy)


def _not_understood(state: State, now: datetime, policy: Policy) -> Decision:
    """A page in which wa-js has not found its way: not yet, or not at all since WhatsApp has changed it."""
    state = _loading(state, now)
    if not _late(state, now, policy):
        return state, []
    words = "This WhatsApp Web is not understood: wa-js does not find what it needs. A newer session image may know it."
    return _stopped(state, Reason.PAGE_INCOMPATIBLE, words, now, at_once=True)


def _stopped(
    state: State, reason: Reason, message: str, now: datetime, *, at_once: bool = False
) -> Decision:
    """WhatsApp has stopped the page. It is opened anew now and then, the first time ``at_once`` where that may help."""
    before = state.stopped_at
    state = _blocked(state, reason, message, now)
    if before is None and not at_once:
        return replace(state, stopped_at=now), []
    if before is not None and now - before < STOPPED_EVERY:
        return state, []
    return replace(state, stopped_at=now), [Step.RELOAD]


def _blocked(state: State, reason: str, message: str, now: datetime) -> State:
    """Nothing that this pod can do would help."""
    state = _disconnected(state, DisconnectKind.CONNECTION, reason, now)
    outage = state.outage and replace(state.outage, due=None)
    return replace(
        state, phase=Phase.FAILED, reason=reason, message=message, waiting_since=None, outage=outage
    )


def _not_linked(state: State, seen: PageObservation, now: datetime, policy: Policy) -> Decision:
    if state.logout_reason is not None:  # second signal: a live page that has no login any more
        return _logged_out(state, state.logout_reason, now)
    if state.phase is Phase.READY:
        state = _disconnected(
            state, DisconnectKind.CONNECTION, seen.socket_state or "UNPAIRED", now
        )
        words = "WhatsApp Web has no login any more and has not said why. The files of the last one are kept."
        state = replace(
            state, phase=Phase.RESTORING, reason=Reason.RESTORATION_FAILED, message=words
        )
    if seen.passkey_required:
        words = "WhatsApp wants the account's passkey before it links this device: confirm it on the phone."
        state = replace(
            state, phase=Phase.PASSKEY_REQUIRED, reason=Reason.PASSKEY_REQUIRED, message=words
        )
        return replace(state, code_expires_at=None, waiting_since=None), []
    if state.rounds_over:
        message = f"No phone was linked in {policy.max_rounds} rounds. Ask for a new code, or restart the session, to try again."
        state = replace(state, phase=Phase.FAILED, reason=Reason.PAIRING_EXPIRED, message=message)
        return replace(state, code_expires_at=None, waiting_since=None), []
    if _used_up(state, seen, now, policy):
        if state.renewing:
            return _in_time(state, now, policy), []
        if state.round >= policy.max_rounds:
            return _not_linked(replace(state, rounds_over=True), seen, now, policy)
        return replace(state, renewing=True, code_expires_at=None, waiting_since=now), [
            Action.RENEW_CODE
        ]
    if seen.mode == "QR" and seen.socket_state in ("UNPAIRED", "UNPAIRED_IDLE"):
        if state.can_fall_back:
            return _login_missing(state, now)
        return _code_wanted(state, now, policy)
    if state.phase is Phase.AUTHENTICATING:  # it had a code and has lost its connection
        words = "WhatsApp Web has lost its connection and connects again."
        state = replace(
            state,
            phase=Phase.STARTING,
            reason=Reason.CONNECTION_LOST,
            message=words,
            code_expires_at=None,
        )
    return _in_time(replace(state, waiting_since=state.waiting_since or now), now, policy), []


def _login_missing(state: State, now: datetime) -> Decision:
    """The page has no login, the volume should have one, and nothing has said that it has ended: the profile has lost it."""
    state = replace(state, missing_since=state.missing_since or now, waiting_since=None)
    assert state.missing_since is not None
    if now - state.missing_since < MISSING_FOR:
        return state, []
    words = (
        "WhatsApp Web has opened without the login that the volume holds, and nothing has ended it."
    )
    return replace(state, phase=_opening(state), reason=Reason.PROFILE_DAMAGED, message=words), [
        Action.FALL_BACK
    ]


def _code_wanted(state: State, now: datetime, policy: Policy) -> Decision:
    """The page has a code, or will have one in a moment."""
    state = replace(state, outage=state.outage and replace(state.outage, due=None))
    if state.code_expires_at is not None and state.code_expires_at + CODE_LATE <= now:
        state = replace(
            state, code_expires_at=None, waiting_since=now
        )  # the page should have changed it long ago
    if state.next_code_at is not None and now < state.next_code_at:
        return state, []
    waited = _in_time(state, now, policy)
    return waited, [Action.FETCH_CODE] if waited is state else []


def _used_up(state: State, seen: PageObservation, now: datetime, policy: Policy) -> bool:
    """Whether a new code must be asked for: the page changes its QR by itself until it has no more, a pairing code expires."""
    idle = seen.socket_state == "UNPAIRED_IDLE"
    if policy.method is PairingMethod.QR_CODE or state.renewing:
        return idle
    return idle if state.code_expires_at is None else state.code_expires_at <= now


def _logged_out(state: State, word: str, now: datetime) -> Decision:
    """Two signals: the page's word, and then a page without a login."""
    state = replace(
        state,
        logout_reason=None,
        good_since=None,
        account=None,
        is_authenticated=False,
        durable=False,
        round=0,
    )
    state = replace(
        state, restored=False, rounds_over=False, code_expires_at=None, waiting_since=now
    )
    if word not in ENDED_BY_WHATSAPP:
        words = f"WhatsApp Web has dropped its login ({word}); WhatsApp itself has not ended it. The profile was moved aside."
        away = LastDisconnect(at=now, kind=DisconnectKind.CRASH, reason=word[:256])
        state = replace(
            state,
            phase=_opening(state),
            reason=Reason.PROFILE_DAMAGED,
            message=words,
            last_disconnect=away,
        )
        return state, [Action.FALL_BACK]
    reason, words = Reason.LOGGED_OUT_BY_PHONE, "WhatsApp has ended this login."
    if state.logout_requested:
        reason, words = Reason.LOGGED_OUT_ON_REQUEST, "This login was ended on request."
    elif word == "account_locked":
        reason, words = (
            Reason.ACCOUNT_LOCKED,
            "WhatsApp has locked the account and ended this login.",
        )
    elif state.phone_last_seen is not None and now - state.phone_last_seen >= PHONE_LIMIT:
        reason, words = (
            Reason.PHONE_OFFLINE,
            f"WhatsApp has ended this login: the phone was not used for {PHONE_LIMIT.days} days.",
        )
    ended = replace(
        state,
        phase=Phase.LOGGED_OUT,
        reason=reason,
        message=words + " Its files are moved aside.",
        session_valid=False,
        had_login=False,
        can_fall_back=False,
        on_trial=False,
        profile_notice=None,
        logout_requested=False,
        phone_last_seen=None,
        last_disconnect=LastDisconnect(at=now, kind=DisconnectKind.LOGOUT, reason=word[:256]),
    )
    return ended, [Action.SET_ASIDE]


def _linked(state: State, seen: PageObservation, now: datetime, policy: Policy) -> Decision:
    state = replace(state, code_expires_at=None, rounds_over=False)
    match seen.socket_state:
        case "CONFLICT":
            return _conflict(state, now, policy)
        case "PAIRING" if not state.session_valid:
            return _linking(state, now), []
        case "CONNECTED":
            return _syncing(state, now, policy), []
        case "TIMEOUT":  # Stream's info TIMEOUT, shown as "Phone not connected"
            return _connection_lost(
                state, DisconnectKind.PHONE_OFFLINE, Reason.PHONE_OFFLINE, now, policy
            ), []
    if state.phase in (
        Phase.AUTHENTICATING,
        Phase.PASSKEY_REQUIRED,
    ):  # the page connects anew after a scan
        return _linking(state, now), []
    return _connection_lost(
        state, DisconnectKind.CONNECTION, Reason.CONNECTION_LOST, now, policy
    ), []


def _linking(state: State, now: datetime) -> State:
    state = replace(
        state,
        phase=Phase.SYNCING,
        reason=Reason.MESSAGES_SYNCING,
        message="A phone is being linked.",
    )
    return replace(state, waiting_since=state.waiting_since or now)


def _syncing(state: State, now: datetime, policy: Policy) -> State:
    """Connected, but the messages are still being loaded."""
    since = state.syncing_since or now
    if now - since >= SYNCING_LIMIT:
        words = f"WhatsApp Web has been loading messages for {int(SYNCING_LIMIT.total_seconds() / 60)} minutes. It is opened anew."
        return failed(state, Reason.INITIALIZATION_TIMEOUT, words, Step.RELOAD, now, policy)
    phase = Phase.RESTORING if state.session_valid else Phase.SYNCING
    if state.phase in (Phase.READY, Phase.RECONNECTING, Phase.CONFLICT):
        phase = Phase.RECONNECTING
    state = _disconnected(state, DisconnectKind.CONNECTION, Reason.MESSAGES_SYNCING, now)
    words = "WhatsApp Web loads the account's messages."
    state = replace(
        state,
        phase=phase,
        reason=Reason.MESSAGES_SYNCING,
        message=words,
        syncing_since=since,
        waiting_since=None,
    )
    return replace(state, outage=state.outage and replace(state.outage, due=None))


def _connection_lost(
    state: State, kind: DisconnectKind, reason: Reason, now: datetime, policy: Policy
) -> State:
    """A login without a connection: the page connects again by itself, for as long as it has the time to."""
    state = replace(_disconnected(state, kind, reason, now), syncing_since=None)
    opening = state.waiting_since is not None
    if opening and not _late(state, now, policy):
        if state.phase in (Phase.RESTORING, Phase.SYNCING, Phase.RECONNECTING):
            return state
        words = "Opening WhatsApp Web with the stored login."
        return replace(state, phase=_opening(state), reason=Reason.LOGIN_RESTORING, message=words)
    words = "WhatsApp Web has lost its connection and connects again."
    if reason is Reason.PHONE_OFFLINE:
        words = "WhatsApp Web waits for the account's phone."
    outage = trouble(state.outage, reason, Step.RELOAD, now, policy.backoff, page_first=not opening)
    phase = Phase.RECONNECTING if state.session_valid else Phase.SYNCING
    return replace(
        state, phase=phase, reason=reason, message=words, outage=outage, waiting_since=None
    )


def _good(state: State, seen: PageObservation, now: datetime) -> Decision:
    account = Account(
        id=(seen.me or "")[:128],
        push_name=seen.push_name,
        platform=(seen.platform or "")[:64] or None,
    )
    state = replace(
        state,
        account=account,
        code_expires_at=None,
        waiting_since=None,
        syncing_since=None,
        stopped_at=None,
        logout_reason=None,
        good_since=state.good_since or now,
        outage=state.outage and replace(state.outage, due=None),
    )
    assert state.good_since is not None
    if state.phase is Phase.READY:
        return _settled(state, now), []
    if now - state.good_since < STABLE:
        return state, []
    if not state.durable:
        words = "The login is being written to the volume."
        pending = replace(
            state,
            phase=Phase.SYNCING,
            reason=Reason.LOGIN_WRITING,
            message=words,
            durable=True,
            good_since=None,
        )
        return replace(pending, waiting_since=now), [Action.RECYCLE]
    new = state.another_login or not state.session_valid
    ready = replace(
        state,
        phase=Phase.READY,
        reason=Reason.CONNECTED,
        message="",
        session_valid=True,
        restored=state.had_login and not state.code_shown,
        ready_since=now,
        last_connected=now,
        # Linking takes the phone itself; a stored login does not.
        phone_last_seen=now if state.code_shown and new else state.phone_last_seen,
        another_login=False,
        can_fall_back=True,
        on_trial=False,
        round=0,
        rounds_over=False,
    )
    if new:
        return ready, [Action.KEEP_LOGIN]
    return ready, [Action.END_TRIAL] if state.on_trial else []


def _settled(state: State, now: datetime) -> State:
    """After a while of Ready the next trouble is a new one."""
    if state.ready_since is None or now - state.ready_since < RESET_AFTER:
        return state
    return replace(state, outage=None, takeovers=0)


def _conflict(state: State, now: datetime, policy: Policy) -> Decision:
    state = _disconnected(state, DisconnectKind.CONFLICT, "CONFLICT", now)
    outage = state.outage and replace(state.outage, due=None)
    words = "WhatsApp Web is open elsewhere with this login."
    state = replace(
        state,
        phase=Phase.CONFLICT,
        reason=Reason.OPENED_ELSEWHERE,
        message=words,
        outage=outage,
        waiting_since=None,
    )
    match policy.takeover:
        case Takeover.NEVER:
            return state, []
        case Takeover.ONCE:
            pause = TAKEOVER_EVERY
        case (
            Takeover.ALWAYS
        ):  # two that take it from each other all the time would look like an attack
            pause = policy.backoff.delay(state.takeovers - 1) if state.takeovers else timedelta(0)
    if state.taken_over_at is not None and now - state.taken_over_at < pause:
        return state, []
    return replace(state, taken_over_at=now, takeovers=state.takeovers + 1), [Action.TAKE_OVER]


def _disconnected(state: State, kind: DisconnectKind, reason: str, now: datetime) -> State:
    """Notes the moment at which a Ready session lost WhatsApp; anything else was not connected anyway."""
    if state.phase is not Phase.READY:
        return state
    lost = LastDisconnect(at=now, kind=kind, reason=reason[:256])
    return replace(state, last_disconnect=lost, good_since=None, ready_since=None)


def _opening(state: State) -> Phase:
    return Phase.RESTORING if state.session_valid else Phase.STARTING


def _moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970, where they are a date at all."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
