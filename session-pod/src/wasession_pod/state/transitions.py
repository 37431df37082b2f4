"""Decide the next state and what to do from an observation of the page.

``decide`` maps the state, an observation and the time to the next state and a list of actions;
the other public functions apply events that the session loop (``session.py``) reports. Nothing
here reads a clock, drives a browser or touches a disk. ``recovery`` plans how to get WhatsApp back.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from wasession_api.base import rfc3339
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import (
    Account,
    AuthState,
    DisconnectKind,
    LastDisconnect,
    PairingMethod,
    Phase,
    Reason,
    Takeover,
)

from wasession_pod.state.memory_pressure import Memory, Relief, needed_relief
from wasession_pod.state.model import Action, Decision, Policy, State
from wasession_pod.state.observation import PageObservation, PageUnavailable
from wasession_pod.state.recovery import RESET_AFTER, Backoff, Step, begin_step, escalate
from wasession_pod.state.report import MAXIMUM_RELOADS, PHONE_LIMIT, RELOADS_WINDOW

STABLE_FOR = timedelta(seconds=0.3)  # of a healthy page, until the session is Ready
MISSING_FOR = timedelta(seconds=5)  # of a QR despite a stored login, until the profile is damaged
TAKEOVER_INTERVAL = timedelta(hours=1)  # at which takeover Once may take the session back
# After so many takeovers, no person has opened the login elsewhere for a moment: another browser
# takes it back each time. Each takeover sets the keys of the two further apart.
TAKEOVERS_WINDOW, MAXIMUM_TAKEOVERS = timedelta(days=1), 5
STOOD_DOWN = (
    "Another browser has connected with this session's login since, so this one has stopped: two "
    "of them end the login for both. The volume is as it was. Stop the other one for good, or "
    "delete this session; to use the login here again, restart the session."
)
BLOCKED_RELOAD_INTERVAL = timedelta(hours=1)  # of a page that WhatsApp has blocked
# Between reloads of a page of the wrong version, which WhatsApp may replace at any time.
VERSION_BACKOFF = Backoff(timedelta(minutes=1), timedelta(hours=1))
SCRIPTS_GRACE = timedelta(seconds=10)  # for a page to do without the scripts that have failed
CODE_GRACE = timedelta(seconds=30)  # for the page to replace an expired QR
SYNCING_LIMIT = timedelta(minutes=15)  # without progress, until loading messages counts as stuck
WRITE_ATTEMPTS = 3  # until a login that does not reach the disk is a problem
PHONE_SEEN_RESOLUTION = timedelta(hours=1)  # earlier activity of the phone is not recorded

# Socket states in which the page stops for good.
BLOCKED = {
    "PROXYBLOCK": (
        Reason.PROXY_BLOCKED,
        "WhatsApp refuses connections from this session's network.",
    ),
    "TOS_BLOCK": (
        Reason.ACCOUNT_BLOCKED,
        "WhatsApp has blocked the account for violating its terms of service.",
    ),
    "SMB_TOS_BLOCK": (
        Reason.ACCOUNT_BLOCKED,
        "WhatsApp has blocked the business account for violating its terms of service.",
    ),
}
NEEDS_BROWSER = {Step.START, Step.RESTART, Step.EXIT}
# Socket states that show that WhatsApp still serves this version, even if it wants a newer one.
SERVED = {"CONNECTED", "PAIRING", "UNPAIRED", "UNPAIRED_IDLE"}
# Logout reasons that come from WhatsApp or the account's owner (LogoutReason of wa-js 4.6.0;
# WAWebHandleFailure has none for 401 and 406). Any other reason is the page's own: it has dropped
# a login that the server may still accept.
LOGOUT = "logout"
ENDED_BY_WHATSAPP = {
    LOGOUT,
    "user_initiated",
    "unknown_companion",
    "account_locked",
    "primary_identity_key_change",
    "invalid_adv_status",
    "md_opt_out",
}


# --- events ---------------------------------------------------------------------------------------


def page_opening(state: State, now: datetime) -> State:
    """Return the state after a new page has been opened."""
    return replace(
        state,
        waiting_since=now,
        healthy_since=None,
        syncing_since=None,
        sync_progress=None,
        login_written=_on_disk_already(state),
        login_missing_since=None,
        renewing_code=False,
        code_expires_at=None,
        outage=state.outage and replace(state.outage, due=None),
    )


def page_reloaded(state: State, now: datetime) -> State:
    """Return the state after the page has loaded another document by itself."""
    recent = [at for at in state.page_reloads if now - at < RELOADS_WINDOW]
    return replace(state, page_reloads=(*recent[1 - MAXIMUM_RELOADS :], now))


def unreachable(state: State, reason: str, error: str, now: datetime, policy: Policy) -> State:
    """Return the state after WhatsApp Web could not be reached."""
    state = _disconnected(state, DisconnectKind.CONNECTION, reason, now)
    return replace(
        state,
        phase=_opening_phase(state),
        reason=reason,
        message=f"WhatsApp Web cannot be opened: {error}. Retrying.",
        waiting_since=None,
        login_written=_on_disk_already(state),
        outage=escalate(state.outage, reason, Step.OPEN, now, policy.backoff),
    )


def failed(
    state: State, reason: str, message: str, step: Step, now: datetime, policy: Policy
) -> State:
    """Return the state after the page or the browser crashed, hung or failed to start.

    ``step`` is the least that recovery takes. A session that has stood down does not recover.
    """
    if state.stood_down:
        return state
    stopped = _stopped(state, DisconnectKind.CRASH, reason, message, step, now, policy)
    return replace(stopped, phase=_opening_phase(stopped), login_written=_on_disk_already(stopped))


def not_startable(state: State, reason: str, message: str, now: datetime, policy: Policy) -> State:
    """Return the state of a session whose browser must not run at present.

    For lack of a usable volume, of a sandbox, or of the files that it starts with.
    """
    stopped = _stopped(state, DisconnectKind.CONNECTION, reason, message, Step.START, now, policy)
    return replace(stopped, phase=Phase.FAILED)


def start_due(state: State, now: datetime) -> State:
    """Return the state once what has prevented a start has changed."""
    return replace(state, outage=state.outage and replace(state.outage, due=now))


def launch_files_checked(state: State, changes: tuple[Notice, ...]) -> State:
    """Return the state with what has changed since the browser was started."""
    return replace(state, launch_file_changes=changes)


def login_present(state: State) -> State:
    """Return the state after a login was read from a volume that cannot be opened yet."""
    return replace(state, session_valid=True, had_login=True)


def volume_checked(state: State, warning: Notice | None) -> State:
    """Return the state after the volume proved usable; ``warning`` tells if it may fill up."""
    return replace(state, volume_warning=warning)


def outbox_checked(state: State, warning: Notice | None) -> State:
    """Return the state after a look at the outbox."""
    return replace(state, outbox_warning=warning)


def profile_selected(state: State, repair: str | None, *, can_fall_back: bool) -> State:
    """Return the state once the browser's profile is known.

    ``repair`` describes how the profile replaced a damaged one; None for an undamaged profile.
    """
    state = replace(
        state, can_fall_back=bool(state.session_valid) and can_fall_back, login_missing_since=None
    )
    if repair is None:
        return state
    return replace(
        state,
        phase=_opening_phase(state),
        reason=Reason.PROFILE_DAMAGED,
        message=repair,
        repair_unconfirmed=True,
        repair_message=repair,
    )


def logout_signal(state: State, reason: str | None) -> State:
    """Return the state after the page announced a logout, the first of two signals of one."""
    specific = state.logout_reason if state.logout_reason not in (None, LOGOUT) else None
    return replace(state, logout_reason=specific or reason or LOGOUT)


def logout_requested(state: State, requested: bool) -> State:
    """Return the state while a client waits for a logout, or after it stopped waiting."""
    return replace(state, logout_requested=requested)


def phone_seen(state: State, at: datetime) -> State:
    """Return the state after the account's phone was active, at a resolution of one hour."""
    if state.phone_last_seen is not None and at < state.phone_last_seen + PHONE_SEEN_RESOLUTION:
        return state
    return replace(state, phone_last_seen=at)


def memory_measured(state: State, memory: Memory | None) -> State:
    """Return the state with the current memory usage; None without a limit."""
    return replace(state, memory=memory)


def code_issued(state: State, expires_at: datetime, policy: Policy) -> State:
    """Return the state after the page issued a link code."""
    reason, message = Reason.WAITING_FOR_SCAN, "Waiting for a phone to scan the QR code."
    if policy.method is PairingMethod.PAIRING_CODE:
        reason = Reason.WAITING_FOR_PAIRING_CODE
        message = "Waiting for the pairing code to be entered on the phone."
    if state.session_valid:
        reason = Reason.RESTORATION_FAILED
        message = f"WhatsApp Web did not accept the stored login. {message}"
    elif state.had_login:
        reason = Reason.LOGIN_MISSING
        message = f"The volume should hold a login but does not. {message}"
    return replace(
        state,
        phase=Phase.AUTHENTICATING,
        reason=reason,
        message=message,
        round=state.round + 1 if state.round == 0 or state.renewing_code else state.round,
        renewing_code=False,
        code_shown=True,
        new_login=True,
        login_written=False,
        code_expires_at=expires_at,
        code_failures=0,
        next_code_at=None,
        waiting_since=None,
        blocked_since=None,
        blocked_reloads=0,
    )


def code_failed(state: State, error: str, now: datetime, policy: Policy) -> State:
    """Return the state after the page issued no link code; requests for one back off."""
    return replace(
        state,
        message=f"WhatsApp Web issued no link code: {error}. Retrying.",
        code_failures=state.code_failures + 1,
        next_code_at=now + policy.backoff.delay(state.code_failures),
        waiting_since=None,
    )


def restart_requested(state: State) -> State:
    """Return the state after a client requested a restart of the browser."""
    return replace(
        state,
        phase=_opening_phase(state),
        reason=Reason.BROWSER_STARTING,
        message="Restarting the browser.",
        healthy_since=None,
        stood_down=False,
    )


def stand_down(state: State) -> State:
    """Return the state of a session whose login another browser has; it keeps its login."""
    return replace(
        state,
        phase=Phase.CONFLICT,
        reason=Reason.LOGIN_IN_USE_ELSEWHERE,
        message=STOOD_DOWN,
        auth_state=AuthState.CONFLICT,
        is_authenticated=False,
        healthy_since=None,
        waiting_since=None,
        outage=None,
        stood_down=True,
    )


def login_not_written(state: State, now: datetime, policy: Policy) -> State:
    """Return the state after Chromium did not write the login: the page must be recycled again.

    A login that was valid before is on disk already, and what it consists of does not change.
    """
    if state.session_valid and not state.new_login:
        return state
    failures = state.write_failures + 1
    state = replace(
        state,
        login_written=False,
        write_failures=failures,
        next_write_at=now + policy.backoff.delay(failures - 1),
    )
    if failures < WRITE_ATTEMPTS:
        return state
    return replace(
        state,
        phase=Phase.SYNCING,
        reason=Reason.LOGIN_NOT_WRITTEN,
        message=f"Chromium has not written the login to the volume in {failures} attempts; "
        "a restart would lose it. Retrying.",
    )


def code_requested(state: State) -> State:
    """Return the state after a client requested a new link code, which resets the rounds."""
    if state.stood_down:
        return state
    return replace(
        state,
        phase=Phase.STARTING,
        reason=Reason.PAGE_LOADING,
        message="",
        round=0,
        rounds_exhausted=False,
        renewing_code=True,
        code_expires_at=None,
        next_code_at=None,
    )


# --- decisions ------------------------------------------------------------------------------------


def browser_due(state: State, now: datetime) -> bool:
    """Return whether the browser is due to be replaced, so that observing it is pointless."""
    outage = state.outage
    return (
        outage is not None
        and outage.due is not None
        and outage.due <= now
        and outage.step in NEEDS_BROWSER
    )


def page_recovered(before: State, after: State) -> bool:
    """Return whether the page has recovered by itself, before the planned step was due."""
    planned, remaining = before.outage, after.outage
    if planned is None or planned.due is None or remaining is None or remaining.due is not None:
        return False
    return after.healthy_since is not None and planned.total_attempts == remaining.total_attempts


def decide(
    state: State, observed: PageObservation | PageUnavailable, now: datetime, policy: Policy
) -> Decision:
    """Return the next state after an observation, and what to do."""
    if state.stood_down:
        return state, []
    if not (isinstance(observed, PageObservation) and observed.mode == "QR"):
        state = replace(state, login_missing_since=None)
    state, actions = _judge(state, observed, now, policy)
    outage = state.outage
    if outage is not None and outage.due is not None and outage.due <= now and not actions:
        return replace(state, outage=begin_step(outage)), [outage.step]
    return state, actions


def relieve_memory(state: State, now: datetime, *, busy: bool) -> Decision:
    """Return how to release memory when it runs out.

    Do nothing while the session is ``busy`` with a message or is not Ready.
    """
    if state.memory is None or state.phase is not Phase.READY or busy:
        return state, []
    needed = needed_relief(state.memory, state.recycled_at, state.restarted_at, now)
    if needed is None:
        return state, []
    state = _disconnected(state, DisconnectKind.CONNECTION, Reason.MEMORY_LOW, now)
    target = "page" if needed is Relief.RECYCLE_PAGE else "browser"
    state = replace(
        state,
        phase=Phase.RECONNECTING,
        reason=Reason.MEMORY_LOW,
        message=f"Memory is running out: replacing the {target}.",
        waiting_since=now,
    )
    if needed is Relief.RECYCLE_PAGE:
        return replace(state, recycled_at=now), [Action.RECYCLE_PAGE]
    return replace(state, restarted_at=now), [Step.RESTART]


def _judge(
    state: State, observed: PageObservation | PageUnavailable, now: datetime, policy: Policy
) -> Decision:
    if isinstance(observed, PageUnavailable):
        return _unavailable(state, observed, now, policy), []
    if not observed.injected or observed.registered is None:
        return _not_injected(state, observed, now, policy)
    state = _with_facts(state, observed, now)
    if observed.healthy:
        account_id = _account_id(state, observed)
        if account_id is None:
            return _anonymous(state, now, policy)
        return _healthy(state, observed, account_id, now)
    state = replace(state, healthy_since=None, ready_since=None)
    if observed.socket_state in BLOCKED:
        reason, message = BLOCKED[observed.socket_state]
        return _blocked(state, reason, message, now)
    if observed.socket_state == "DEPRECATED_VERSION" or (
        observed.needs_update and observed.socket_state not in SERVED
    ):
        message = "WhatsApp refuses this version of WhatsApp Web."
        if policy.pinned:
            message = (
                "WhatsApp refuses the version of the pinned document. Pin a newer one, or remove "
                "whatsappDocument from the WhatsAppSessionClass."
            )
        return _wrong_version(state, Reason.VERSION_REFUSED, message, now)
    banned_until = _to_datetime(observed.banned_until)
    if banned_until is not None and now < banned_until:
        message = f"WhatsApp has banned the account until {rfc3339(banned_until)}."
        return _stuck(state, Reason.ACCOUNT_BANNED, message, now), []
    if observed.registered:
        return _linked(state, observed, now, policy)
    return _not_linked(state, observed, now, policy)


def _with_facts(state: State, observed: PageObservation, now: datetime) -> State:
    unheard = observed.unheard if observed.healthy else ()
    known = observed.socket_state in AuthState.__members__
    return replace(
        state,
        auth_state=AuthState(observed.socket_state)
        if known and observed.socket_state
        else state.auth_state,
        is_authenticated=observed.authenticated is True,
        unheard=unheard,
        unheard_since=(state.unheard_since or now) if unheard else None,
        needs_update=observed.needs_update,
        whatsapp_web_version=(observed.wa_version or state.whatsapp_web_version or "")[:64] or None,
    )


# --- a page that cannot be observed ---------------------------------------------------------------


def _unavailable(state: State, why: PageUnavailable, now: datetime, policy: Policy) -> State:
    """Return the state for a page that does not answer, which never implies a logout."""
    planned = state.outage.step if state.outage is not None and state.outage.due else None
    if why is PageUnavailable.CLOSED:
        if planned in NEEDS_BROWSER:
            return state
        message = "The page or the browser has exited. Restarting the browser."
        return failed(state, Reason.BROWSER_CRASHED, message, Step.RESTART, now, policy)
    if why is PageUnavailable.HUNG and state.waiting_since is None:
        message = "The page does not respond. Opening a fresh one."
        return failed(state, Reason.PAGE_HUNG, message, Step.RELOAD, now, policy)
    return state if planned is not None else _check_timeout(_loading(state, now), now, policy)


def _loading(state: State, now: datetime) -> State:
    """Return the state of a page between two documents; it may have navigated by itself."""
    state = replace(state, healthy_since=None, waiting_since=state.waiting_since or now)
    if state.phase is not Phase.READY:
        return state
    return replace(
        _disconnected(state, DisconnectKind.CONNECTION, Reason.PAGE_LOADING, now),
        phase=Phase.RECONNECTING,
        reason=Reason.PAGE_LOADING,
        message="WhatsApp Web is loading.",
    )


def _timed_out(state: State, now: datetime, policy: Policy) -> bool:
    waiting_since = state.waiting_since
    return waiting_since is not None and now - waiting_since >= policy.initialization_timeout


def _check_timeout(state: State, now: datetime, policy: Policy) -> State:
    """Plan a fresh page once a new one has shown nothing within the initialization timeout."""
    if not _timed_out(state, now, policy):
        return state
    seconds = int(policy.initialization_timeout.total_seconds())
    message = f"WhatsApp Web showed neither a link code nor a login within {seconds} s."
    return failed(state, Reason.INITIALIZATION_TIMEOUT, message, Step.RELOAD, now, policy)


def _not_injected(
    state: State, observed: PageObservation, now: datetime, policy: Policy
) -> Decision:
    """Decide about a page without wa-js: it loads, lacks scripts, or WhatsApp has changed it.

    Or wa-js does not run at all, which nothing but another one changes.
    """
    if state.outage is not None and state.outage.due is not None:
        return state, []
    if observed.wa_js_error is not None:
        error = " ".join(observed.wa_js_error.split())
        message = f"wa-js does not run in WhatsApp Web: it {error}. Use another one."
        return _wrong_version(state, Reason.PAGE_INCOMPATIBLE, message, now)
    state = _loading(state, now)
    fault, timed_out = observed.script_fault, _timed_out(state, now, policy)
    waited = now - (state.waiting_since or now)
    if fault is not None and (timed_out or (waited >= SCRIPTS_GRACE and not fault.pending)):
        return unreachable(state, fault.reason, fault.message, now, policy), []
    if not timed_out:
        return state, []
    message = (
        "This version of WhatsApp Web is not supported: wa-js cannot find what it needs. "
        "A newer wa-js may support it."
    )
    return _wrong_version(state, Reason.PAGE_INCOMPATIBLE, message, now)


def _blocked(state: State, reason: Reason, message: str, now: datetime) -> Decision:
    """Reload a blocked page at long intervals."""
    before = state.blocked_since
    state = _stuck(state, reason, message, now)
    if before is None:
        return replace(state, blocked_since=now), []
    if now - before < BLOCKED_RELOAD_INTERVAL:
        return state, []
    return replace(state, blocked_since=now), [Step.RELOAD]


def _wrong_version(state: State, reason: Reason, message: str, now: datetime) -> Decision:
    """Reload a page of the wrong version at once, and then with a backoff."""
    before, reloads = state.blocked_since, state.blocked_reloads
    state = _stuck(state, reason, message, now)
    if before is not None and reloads and now - before < VERSION_BACKOFF.delay(reloads - 1):
        return state, []
    return replace(state, blocked_since=now, blocked_reloads=reloads + 1), [Step.RELOAD]


def _stuck(state: State, reason: str, message: str, now: datetime) -> State:
    """Return the state of a session that nothing in this pod can recover."""
    state = _disconnected(state, DisconnectKind.CONNECTION, reason, now)
    return replace(
        state,
        phase=Phase.FAILED,
        reason=reason,
        message=message,
        waiting_since=None,
        outage=state.outage and replace(state.outage, due=None),
    )


# --- a page without a login -----------------------------------------------------------------------


def _not_linked(state: State, observed: PageObservation, now: datetime, policy: Policy) -> Decision:
    if state.logout_reason is not None:  # the second signal: a live page without a login
        return _logged_out(state, state.logout_reason, now)
    if state.phase is Phase.READY:
        state = _login_gone(state, observed, now)
    if observed.passkey_required:
        return replace(
            state,
            phase=Phase.PASSKEY_REQUIRED,
            reason=Reason.PASSKEY_REQUIRED,
            message="WhatsApp requires the account's passkey to link this device: "
            "confirm it on the phone.",
            code_expires_at=None,
            waiting_since=None,
        ), []
    if state.rounds_exhausted:
        return _pairing_expired(state, policy), []
    if _code_used_up(state, observed, now, policy):
        if state.renewing_code:
            return _check_timeout(state, now, policy), []
        if state.round >= policy.max_rounds:
            return _pairing_expired(replace(state, rounds_exhausted=True), policy), []
        state = replace(state, renewing_code=True, code_expires_at=None, waiting_since=now)
        return state, [Action.RENEW_CODE]
    if observed.mode == "QR" and observed.socket_state in ("UNPAIRED", "UNPAIRED_IDLE"):
        if state.can_fall_back:
            return _login_missing(state, now)
        return _needs_code(state, now, policy)
    if state.phase is Phase.AUTHENTICATING:  # it had a code and has lost its connection
        state = replace(
            state,
            phase=Phase.STARTING,
            reason=Reason.CONNECTION_LOST,
            message="WhatsApp Web has lost its connection and is reconnecting.",
            code_expires_at=None,
        )
    state = replace(state, waiting_since=state.waiting_since or now)
    return _check_timeout(state, now, policy), []


def _login_gone(state: State, observed: PageObservation, now: datetime) -> State:
    """Return the state of a Ready session whose page has lost its login without a logout."""
    socket_state = observed.socket_state or "UNPAIRED"
    return replace(
        _disconnected(state, DisconnectKind.CONNECTION, socket_state, now),
        phase=Phase.RESTORING,
        reason=Reason.RESTORATION_FAILED,
        message="WhatsApp Web no longer has a login and gave no reason. "
        "The files of the login are preserved.",
    )


def _pairing_expired(state: State, policy: Policy) -> State:
    return replace(
        state,
        phase=Phase.FAILED,
        reason=Reason.PAIRING_EXPIRED,
        message=f"No phone was linked in {policy.max_rounds} rounds. "
        "Request a new link code or restart the session to try again.",
        code_expires_at=None,
        waiting_since=None,
    )


def _login_missing(state: State, now: datetime) -> Decision:
    """Decide about a page without the login that the volume holds, although nothing has ended it.

    If that lasts, the profile has lost the login.
    """
    since = state.login_missing_since or now
    state = replace(state, login_missing_since=since, waiting_since=None)
    if now - since < MISSING_FOR:
        return state, []
    return replace(
        state,
        phase=_opening_phase(state),
        reason=Reason.PROFILE_DAMAGED,
        message="WhatsApp Web opened without the login that the volume holds, "
        "although nothing has ended it.",
    ), [Action.FALL_BACK]


def _needs_code(state: State, now: datetime, policy: Policy) -> Decision:
    """Fetch the link code that the page has, or will have in a moment."""
    state = replace(state, outage=state.outage and replace(state.outage, due=None))
    if state.code_expires_at is not None and state.code_expires_at + CODE_GRACE <= now:
        # The page has not replaced its code in time.
        state = replace(state, code_expires_at=None, waiting_since=now)
    if state.next_code_at is not None and now < state.next_code_at:
        return state, []
    checked = _check_timeout(state, now, policy)
    return checked, [Action.FETCH_CODE] if checked is state else []


def _code_used_up(state: State, observed: PageObservation, now: datetime, policy: Policy) -> bool:
    """Return whether the page needs to be asked for a new code.

    The page replaces its QR code by itself until it runs out of them; a pairing code expires.
    """
    idle = observed.socket_state == "UNPAIRED_IDLE"
    if policy.method is PairingMethod.QR_CODE or state.renewing_code:
        return idle
    return idle if state.code_expires_at is None else state.code_expires_at <= now


def _logged_out(state: State, cause: str, now: datetime) -> Decision:
    """Decide after both signals of a logout: the page's announcement and a page without a login."""
    state = replace(
        state,
        logout_reason=None,
        healthy_since=None,
        account=None,
        is_authenticated=False,
        login_written=False,
        write_failures=0,
        next_write_at=None,
        round=0,
        restored=False,
        rounds_exhausted=False,
        code_expires_at=None,
        waiting_since=now,
    )
    if cause not in ENDED_BY_WHATSAPP:
        return replace(
            state,
            phase=_opening_phase(state),
            reason=Reason.PROFILE_DAMAGED,
            message=f"WhatsApp Web has dropped its login ({cause}), which WhatsApp itself has not "
            "ended. The profile is quarantined.",
            last_disconnect=LastDisconnect(at=now, kind=DisconnectKind.CRASH, reason=cause[:256]),
        ), [Action.FALL_BACK]
    reason, message = _logout_cause(state, cause, now)
    return replace(
        state,
        phase=Phase.LOGGED_OUT,
        recorded_account=None,
        reason=reason,
        message=f"{message} Its profile is quarantined.",
        session_valid=False,
        had_login=False,
        can_fall_back=False,
        repair_unconfirmed=False,
        repair_message=None,
        logout_requested=False,
        phone_last_seen=None,
        last_disconnect=LastDisconnect(at=now, kind=DisconnectKind.LOGOUT, reason=cause[:256]),
    ), [Action.QUARANTINE_PROFILE]


def _logout_cause(state: State, cause: str, now: datetime) -> tuple[Reason, str]:
    """Return why WhatsApp has ended the login, as a reason and a message."""
    if state.logout_requested:
        return Reason.LOGGED_OUT_ON_REQUEST, "This login was ended on request."
    if cause == "account_locked":
        return Reason.ACCOUNT_LOCKED, "WhatsApp has locked the account and ended this login."
    if state.phone_last_seen is not None and now - state.phone_last_seen >= PHONE_LIMIT:
        message = (
            f"WhatsApp has ended this login: the phone was unused for {PHONE_LIMIT.days} days."
        )
        return Reason.PHONE_OFFLINE, message
    return Reason.LOGGED_OUT_BY_PHONE, "WhatsApp has ended this login."


# --- a page with a login --------------------------------------------------------------------------


def _linked(state: State, observed: PageObservation, now: datetime, policy: Policy) -> Decision:
    state = replace(state, code_expires_at=None, rounds_exhausted=False)
    match observed.socket_state:
        case "CONFLICT":
            return _conflict(state, now, policy)
        case "PAIRING" if not state.session_valid:
            return _linking(state, now), []
        case "CONNECTED":
            return _syncing(state, observed, now, policy), []
        case "TIMEOUT":  # Stream's info TIMEOUT, which WhatsApp Web shows as "Phone not connected"
            kind, reason = DisconnectKind.PHONE_OFFLINE, Reason.PHONE_OFFLINE
            return _connection_lost(state, kind, reason, now, policy), []
    if state.phase in (Phase.AUTHENTICATING, Phase.PASSKEY_REQUIRED):
        return _linking(state, now), []  # the page reconnects after a scan
    kind, reason = DisconnectKind.CONNECTION, Reason.CONNECTION_LOST
    return _connection_lost(state, kind, reason, now, policy), []


def _linking(state: State, now: datetime) -> State:
    return replace(
        state,
        phase=Phase.SYNCING,
        reason=Reason.MESSAGES_SYNCING,
        message="A phone is being linked.",
        waiting_since=state.waiting_since or now,
    )


def _syncing(state: State, observed: PageObservation, now: datetime, policy: Policy) -> State:
    """Return the state of a page that is connected and still loads its messages."""
    since = state.syncing_since or now
    if (observed.sync_progress or 0) > (state.sync_progress or 0):
        state, since = replace(state, sync_progress=observed.sync_progress), now
    if now - since >= SYNCING_LIMIT:
        minutes = int(SYNCING_LIMIT.total_seconds() / 60)
        message = (
            f"WhatsApp Web has been loading messages for {minutes} minutes without progress. "
            "Opening a fresh page."
        )
        return failed(state, Reason.INITIALIZATION_TIMEOUT, message, Step.RELOAD, now, policy)
    phase = Phase.RESTORING if state.session_valid else Phase.SYNCING
    if state.phase in (Phase.READY, Phase.RECONNECTING, Phase.CONFLICT):
        phase = Phase.RECONNECTING
    state = _disconnected(state, DisconnectKind.CONNECTION, Reason.MESSAGES_SYNCING, now)
    return replace(
        state,
        phase=phase,
        reason=Reason.MESSAGES_SYNCING,
        message="WhatsApp Web is loading the account's messages.",
        syncing_since=since,
        waiting_since=None,
        outage=state.outage and replace(state.outage, due=None),
    )


def _connection_lost(
    state: State, kind: DisconnectKind, reason: Reason, now: datetime, policy: Policy
) -> State:
    """Return the state of a login without a connection; the page first reconnects by itself."""
    state = replace(_disconnected(state, kind, reason, now), syncing_since=None)
    opening = state.waiting_since is not None
    if opening and not _timed_out(state, now, policy):
        if state.phase in (Phase.RESTORING, Phase.SYNCING, Phase.RECONNECTING):
            return state
        return replace(
            state,
            phase=_opening_phase(state),
            reason=Reason.LOGIN_RESTORING,
            message="Opening WhatsApp Web with the stored login.",
        )
    message = "WhatsApp Web has lost its connection and is reconnecting."
    if reason is Reason.PHONE_OFFLINE:
        message = "WhatsApp Web is waiting for the account's phone."
    return replace(
        state,
        phase=Phase.RECONNECTING if state.session_valid else Phase.SYNCING,
        reason=reason,
        message=message,
        waiting_since=None,
        outage=escalate(
            state.outage, reason, Step.RELOAD, now, policy.backoff, page_first=not opening
        ),
    )


def _account_id(state: State, observed: PageObservation) -> str | None:
    """Return the id of the page's account: its own word, else what is known of this login."""
    known = state.account.id if state.account is not None else state.recorded_account
    return observed.me or (None if state.new_login else known)


def _anonymous(state: State, now: datetime, policy: Policy) -> Decision:
    """Decide about a page that is connected and does not tell as whom."""
    state = _loading(state, now)
    if not _timed_out(state, now, policy):
        return state, []
    message = (
        "WhatsApp Web does not tell which account it is logged in to. "
        "A newer session image may support this version."
    )
    return _wrong_version(state, Reason.PAGE_INCOMPATIBLE, message, now)


def _healthy(state: State, observed: PageObservation, account_id: str, now: datetime) -> Decision:
    healthy_since = state.healthy_since or now
    state = replace(
        state,
        account=Account(
            id=account_id[:128],
            push_name=observed.push_name,
            platform=(observed.platform or "")[:64] or None,
        ),
        code_expires_at=None,
        waiting_since=None,
        syncing_since=None,
        blocked_since=None,
        blocked_reloads=0,
        logout_reason=None,
        healthy_since=healthy_since,
        outage=state.outage and replace(state.outage, due=None),
    )
    if state.phase is Phase.READY:
        return _end_outage(state, now), []
    if now - healthy_since < STABLE_FOR:
        return state, []
    if not state.login_written:
        if state.next_write_at is not None and now < state.next_write_at:
            return replace(state, healthy_since=None), []
        if state.write_failures < WRITE_ATTEMPTS:
            state = replace(
                state,
                phase=Phase.SYNCING,
                reason=Reason.LOGIN_WRITING,
                message="The login is being written to the volume.",
            )
        return replace(
            state,
            login_written=True,
            healthy_since=None,
            waiting_since=now,
        ), [Action.RECYCLE_PAGE]
    return _ready(state, now)


def _ready(state: State, now: datetime) -> Decision:
    """Decide for a stable page whose login is written: the session is Ready."""
    new_login = state.new_login or not state.session_valid
    ready = replace(
        state,
        phase=Phase.READY,
        reason=Reason.CONNECTED,
        message="",
        session_valid=True,
        restored=state.had_login and not state.code_shown,
        ready_since=now,
        last_connected=now,
        # Linking requires the phone; restoring a login does not.
        phone_last_seen=now if state.code_shown and new_login else state.phone_last_seen,
        new_login=False,
        write_failures=0,
        next_write_at=None,
        can_fall_back=True,
        repair_unconfirmed=False,
        round=0,
        rounds_exhausted=False,
    )
    if new_login:
        return ready, [Action.RECORD_LOGIN]
    return ready, [Action.CONFIRM_REPAIR] if state.repair_unconfirmed else []


def _end_outage(state: State, now: datetime) -> State:
    """Forget the outage once the session has been Ready for a while."""
    if state.ready_since is None or now - state.ready_since < RESET_AFTER:
        return state
    return replace(state, outage=None, takeovers=0)


def _conflict(state: State, now: datetime, policy: Policy) -> Decision:
    state = _disconnected(state, DisconnectKind.CONFLICT, "CONFLICT", now)
    state = replace(
        state,
        phase=Phase.CONFLICT,
        reason=Reason.OPENED_ELSEWHERE,
        message="WhatsApp Web is open elsewhere with this login.",
        waiting_since=None,
        outage=state.outage and replace(state.outage, due=None),
    )
    recent = tuple(at for at in state.taken_over_at if now - at < TAKEOVERS_WINDOW)
    if policy.takeover is Takeover.NEVER or len(recent) >= MAXIMUM_TAKEOVERS:
        return stand_down(state), [Action.STAND_DOWN]
    match policy.takeover:
        case Takeover.ONCE:
            pause = TAKEOVER_INTERVAL
        case Takeover.ALWAYS:  # back off: two clients in a takeover loop would look like an attack
            pause = policy.backoff.delay(state.takeovers - 1) if state.takeovers else timedelta(0)
    if recent and now - recent[-1] < pause:
        return state, []
    state = replace(state, taken_over_at=(*recent, now), takeovers=state.takeovers + 1)
    return state, [Action.TAKE_OVER]


# --- parts of several decisions -------------------------------------------------------------------


def _disconnected(state: State, kind: DisconnectKind, reason: str, now: datetime) -> State:
    """Record when a Ready session lost WhatsApp; in other phases it was not connected anyway."""
    if state.phase is not Phase.READY:
        return state
    lost = LastDisconnect(at=now, kind=kind, reason=reason[:256])
    return replace(state, last_disconnect=lost, healthy_since=None, ready_since=None)


def _stopped(
    state: State,
    kind: DisconnectKind,
    reason: str,
    message: str,
    step: Step,
    now: datetime,
    policy: Policy,
) -> State:
    """Return the state without a page that could be asked; ``step`` is the least to recover."""
    return replace(
        _disconnected(state, kind, reason, now),
        reason=reason,
        message=message,
        auth_state=None,
        is_authenticated=False,
        code_expires_at=None,
        healthy_since=None,
        waiting_since=None,
        outage=escalate(state.outage, reason, step, now, policy.backoff),
    )


def _on_disk_already(state: State) -> bool:
    """Return whether a login needs no proof that it is on disk: it has been recorded before.

    A page that failed may not have written a new one, even if it looks well again.
    """
    return bool(state.session_valid) and not state.new_login


def _opening_phase(state: State) -> Phase:
    return Phase.RESTORING if state.session_valid else Phase.STARTING


def _to_datetime(seconds: float | None) -> datetime | None:
    """Return seconds since the epoch as a time; None when out of range."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
