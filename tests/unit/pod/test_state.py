"""The session pod's decisions: each observation of the page, and what follows from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import AuthState, DisconnectKind, PairingMethod, Phase, Reason, Takeover
from wasession_pod.state import transitions
from wasession_pod.state.memory_pressure import Memory
from wasession_pod.state.model import Action, Policy, State, initial
from wasession_pod.state.observation import PageObservation, PageUnavailable, ScriptFault
from wasession_pod.state.recovery import LIMITS, Backoff, Step
from wasession_pod.state.report import warnings
from wasession_pod.state.transitions import ENDED_BY_WHATSAPP, decide

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)
POLICY = Policy(
    initialization_timeout=2 * MINUTE,
    max_rounds=2,
    method=PairingMethod.QR_CODE,
    takeover=Takeover.NEVER,
    backoff=Backoff(initial=2 * SECOND, maximum=5 * MINUTE),
)
BY_CODE = replace(POLICY, method=PairingMethod.PAIRING_CODE)


def observation(**fields: Any) -> PageObservation:
    good: dict[str, Any] = {
        "injected": True,
        "registered": True,
        "authenticated": True,
        "socket_state": "CONNECTED",
        "mode": "MAIN",
        "info": "NORMAL",
        "me": "15551234567@c.us",
    }
    return PageObservation(**good | fields)


GOOD = observation()
OPENING = observation(socket_state="OPENING", info="OPENING")
CONFLICT = observation(socket_state="CONFLICT", mode="CONFLICT")
QR = observation(registered=False, authenticated=False, mode="QR", socket_state="UNPAIRED", me=None)
IDLE = QR.model_copy(update={"socket_state": "UNPAIRED_IDLE"})
PASSKEY = QR.model_copy(update={"passkey_required": True})


def issued(state: State, expires_at: datetime, policy: Policy = POLICY) -> State:
    return transitions.code_issued(state, expires_at, policy)


def settle(
    state: State, observed: PageObservation, now: datetime = NOW, policy: Policy = POLICY
) -> tuple[State, list[Action | Step]]:
    """Decide twice, far enough apart for the page to count as stable."""
    state, first = decide(state, observed, now, policy)
    state, second = decide(state, observed, now + SECOND, policy)
    return state, first + second


FRESH = transitions.page_opening(initial(has_login=False, restoring=False, now=NOW), NOW)
STORED = transitions.page_opening(initial(has_login=True, restoring=True, now=NOW), NOW)
WITH_SNAPSHOT = transitions.profile_selected(STORED, None, can_fall_back=True)
CODE_ISSUED = issued(FRESH, NOW + MINUTE)
READY = settle(STORED, GOOD)[0]
RECONNECTING = decide(READY, OPENING, NOW, POLICY)[0]
HALF_LOGGED_OUT = transitions.logout_signal(READY, None)
HALF_DROPPED = transitions.logout_signal(READY, "web_fail_storage_initialization")


# --- one observation ------------------------------------------------------------------------------

ROWS: list[tuple[State, dict[str, Any] | PageUnavailable, Phase, Reason, list[Action | Step]]] = [
    # A session without a login.
    (FRESH, PageUnavailable.LOADING, Phase.STARTING, Reason.BROWSER_STARTING, []),
    (FRESH, {"injected": False}, Phase.STARTING, Reason.BROWSER_STARTING, []),
    (FRESH, {"registered": None}, Phase.STARTING, Reason.BROWSER_STARTING, []),
    (FRESH, QR.model_dump(), Phase.STARTING, Reason.BROWSER_STARTING, [Action.FETCH_CODE]),
    (
        FRESH,
        QR.model_dump() | {"socket_state": "OPENING"},
        Phase.STARTING,
        Reason.BROWSER_STARTING,
        [],
    ),
    (
        CODE_ISSUED,
        QR.model_dump(),
        Phase.AUTHENTICATING,
        Reason.WAITING_FOR_SCAN,
        [Action.FETCH_CODE],
    ),
    (
        CODE_ISSUED,
        IDLE.model_dump(),
        Phase.AUTHENTICATING,
        Reason.WAITING_FOR_SCAN,
        [Action.RENEW_CODE],
    ),
    (CODE_ISSUED, PASSKEY.model_dump(), Phase.PASSKEY_REQUIRED, Reason.PASSKEY_REQUIRED, []),
    (
        CODE_ISSUED,
        QR.model_dump() | {"socket_state": "OPENING"},
        Phase.STARTING,
        Reason.CONNECTION_LOST,
        [],
    ),
    (
        CODE_ISSUED,
        {"socket_state": "PAIRING", "mode": "SYNCING"},
        Phase.SYNCING,
        Reason.MESSAGES_SYNCING,
        [],
    ),
    (
        CODE_ISSUED,
        {"socket_state": "OPENING", "mode": "SYNCING"},
        Phase.SYNCING,
        Reason.MESSAGES_SYNCING,
        [],
    ),
    (
        CODE_ISSUED,
        {"mode": "SYNCING", "info": "SYNCING"},
        Phase.SYNCING,
        Reason.MESSAGES_SYNCING,
        [],
    ),
    # A session that has one.
    (
        STORED,
        {"socket_state": "OPENING", "mode": "SYNCING"},
        Phase.RESTORING,
        Reason.LOGIN_RESTORING,
        [],
    ),
    (STORED, {"mode": "SYNCING", "info": "SYNCING"}, Phase.RESTORING, Reason.MESSAGES_SYNCING, []),
    (READY, {}, Phase.READY, Reason.CONNECTED, []),
    (READY, OPENING.model_dump(), Phase.RECONNECTING, Reason.CONNECTION_LOST, []),
    (
        READY,
        {"socket_state": "OPENING", "info": "OFFLINE"},
        Phase.RECONNECTING,
        Reason.CONNECTION_LOST,
        [],
    ),
    (
        READY,
        {"socket_state": "PAIRING", "info": "RESUMING"},
        Phase.RECONNECTING,
        Reason.CONNECTION_LOST,
        [],
    ),
    (
        READY,
        {"socket_state": "TIMEOUT", "info": "TIMEOUT"},
        Phase.RECONNECTING,
        Reason.PHONE_OFFLINE,
        [],
    ),
    (
        READY,
        {"mode": "SYNCING", "info": "SYNCING"},
        Phase.RECONNECTING,
        Reason.MESSAGES_SYNCING,
        [],
    ),
    (READY, {"socket_state": "UNKNOWN_VALUE"}, Phase.RECONNECTING, Reason.CONNECTION_LOST, []),
    (READY, PageUnavailable.LOADING, Phase.RECONNECTING, Reason.PAGE_LOADING, []),
    (READY, {"injected": False}, Phase.RECONNECTING, Reason.PAGE_LOADING, []),
    (READY, PageUnavailable.HUNG, Phase.RESTORING, Reason.PAGE_HUNG, []),
    (READY, PageUnavailable.CLOSED, Phase.RESTORING, Reason.BROWSER_CRASHED, []),
    (
        READY,
        CONFLICT.model_dump(),
        Phase.CONFLICT,
        Reason.LOGIN_IN_USE_ELSEWHERE,
        [Action.STAND_DOWN],
    ),
    (
        READY,
        {"socket_state": "PROXYBLOCK", "mode": "PROXYBLOCK"},
        Phase.FAILED,
        Reason.PROXY_BLOCKED,
        [],
    ),
    (
        READY,
        {"socket_state": "TOS_BLOCK", "mode": "TOS_BLOCK"},
        Phase.FAILED,
        Reason.ACCOUNT_BLOCKED,
        [],
    ),
    (READY, {"socket_state": "SMB_TOS_BLOCK"}, Phase.FAILED, Reason.ACCOUNT_BLOCKED, []),
    (
        READY,
        {"socket_state": "DEPRECATED_VERSION"},
        Phase.FAILED,
        Reason.VERSION_REFUSED,
        [Step.RELOAD],
    ),
    (
        READY,
        OPENING.model_dump() | {"needs_update": True},
        Phase.FAILED,
        Reason.VERSION_REFUSED,
        [Step.RELOAD],
    ),
    (READY, {"needs_update": True}, Phase.READY, Reason.CONNECTED, []),
    (
        READY,
        OPENING.model_dump() | {"banned_until": (NOW + HOUR).timestamp()},
        Phase.FAILED,
        Reason.ACCOUNT_BANNED,
        [],
    ),
    (
        READY,
        OPENING.model_dump() | {"banned_until": (NOW - HOUR).timestamp()},
        Phase.RECONNECTING,
        Reason.CONNECTION_LOST,
        [],
    ),
    (READY, {"banned_until": (NOW + HOUR).timestamp()}, Phase.READY, Reason.CONNECTED, []),
    (
        READY,
        OPENING.model_dump() | {"banned_until": 1e300},
        Phase.RECONNECTING,
        Reason.CONNECTION_LOST,
        [],
    ),
    # A page without a login alone proves nothing.
    (READY, QR.model_dump(), Phase.RESTORING, Reason.RESTORATION_FAILED, []),
    (STORED, QR.model_dump(), Phase.RESTORING, Reason.LOGIN_RESTORING, [Action.FETCH_CODE]),
    (WITH_SNAPSHOT, QR.model_dump(), Phase.RESTORING, Reason.LOGIN_RESTORING, []),
    (HALF_LOGGED_OUT, OPENING.model_dump(), Phase.RECONNECTING, Reason.CONNECTION_LOST, []),
    (HALF_LOGGED_OUT, PageUnavailable.LOADING, Phase.RECONNECTING, Reason.PAGE_LOADING, []),
    (
        HALF_LOGGED_OUT,
        QR.model_dump(),
        Phase.LOGGED_OUT,
        Reason.LOGGED_OUT_BY_PHONE,
        [Action.QUARANTINE_PROFILE],
    ),
    (HALF_DROPPED, QR.model_dump(), Phase.RESTORING, Reason.PROFILE_DAMAGED, [Action.FALL_BACK]),
]


@pytest.mark.parametrize(("before", "observed", "phase", "reason", "actions"), ROWS)
def test_one_observation(
    before: State,
    observed: dict[str, Any] | PageUnavailable,
    phase: Phase,
    reason: Reason,
    actions: list[Action | Step],
) -> None:
    state, actual = decide(
        before,
        observed if isinstance(observed, PageUnavailable) else observation(**observed),
        NOW,
        POLICY,
    )
    assert (state.phase, state.reason, actual) == (phase, reason, actions)


REGISTERED = [None, True, False]
MODES = [None, "MAIN", "QR", "SYNCING", "OFFLINE", "CONFLICT", "PROXYBLOCK", "UNKNOWN_VALUE"]
INFOS = [None, "NORMAL", "OPENING", "SYNCING", "RESUMING"]
SOCKETS = [None, *AuthState, "UNKNOWN_VALUE"]
FLAGS = [False, True]


def observations() -> Iterator[PageObservation]:
    """Yield every combination of what a page can report."""
    for registered, mode, info, socket_state, passkey, banned, outdated in itertools.product(
        REGISTERED, MODES, INFOS, SOCKETS, FLAGS, FLAGS, FLAGS
    ):
        yield PageObservation.model_construct(
            injected=True,
            registered=registered,
            authenticated=registered,
            mode=mode,
            info=info,
            socket_state=socket_state,
            me="15551234567@c.us" if registered else None,
            passkey_required=passkey,
            banned_until=(NOW + HOUR).timestamp() if banned else None,
            needs_update=outdated,
        )


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(FRESH, id="fresh"),
        pytest.param(CODE_ISSUED, id="code issued"),
        pytest.param(STORED, id="stored"),
        pytest.param(replace(STORED, healthy_since=NOW - SECOND), id="good for a second"),
        pytest.param(READY, id="ready"),
        pytest.param(RECONNECTING, id="reconnecting"),
        pytest.param(HALF_LOGGED_OUT, id="half logged out"),
        pytest.param(HALF_DROPPED, id="half dropped"),
    ],
)
def test_every_observation_from(before: State) -> None:
    for observed in observations():
        after, actions = decide(before, observed, NOW, POLICY)
        good = (observed.registered, observed.mode, observed.info, observed.socket_state) == (
            True,
            "MAIN",
            "NORMAL",
            "CONNECTED",
        )
        assert len(actions) <= 1
        if after.phase is Phase.READY and before.phase is not Phase.READY:
            assert good, observed
            assert before.healthy_since is not None
            assert before.login_written
        assert (after.phase is Phase.READY) <= good, observed
        assert (Action.QUARANTINE_PROFILE in actions) == (
            before.session_valid and not after.session_valid
        ), observed
        assert (after.phase is Phase.LOGGED_OUT) == (Action.QUARANTINE_PROFILE in actions), observed
        if actions in ([Action.QUARANTINE_PROFILE], [Action.FALL_BACK]):
            assert before.logout_reason is not None, "the first signal"
            assert observed.registered is False, "the second"
            assert (before.logout_reason in ENDED_BY_WHATSAPP) == (
                actions == [Action.QUARANTINE_PROFILE]
            )
        assert (Action.RECORD_LOGIN in actions) == (
            after.session_valid and not before.session_valid
        ), observed
        if observed.registered is not None and observed.socket_state in AuthState.__members__:
            assert after.auth_state == observed.socket_state
        if after.phase is Phase.FAILED:
            blocked = observed.socket_state in {*transitions.BLOCKED, "DEPRECATED_VERSION"}
            assert blocked or observed.needs_update or observed.banned_until, observed
        if isinstance(actions[:1] and actions[0], Step):
            assert after.reason == Reason.VERSION_REFUSED, (
                "nothing else is reloaded at the first observation"
            )
        assert (after.last_disconnect != before.last_disconnect) <= (
            before.phase is Phase.READY
            or Action.QUARANTINE_PROFILE in actions
            or Action.FALL_BACK in actions
        )


SOCKET_STATES = st.sampled_from([None, *AuthState, "UNKNOWN_VALUE"])
OBSERVATIONS = st.one_of(
    st.sampled_from(PageUnavailable),
    st.sampled_from([GOOD, OPENING, QR, IDLE, CONFLICT]),
    st.builds(
        PageObservation,
        injected=st.booleans(),
        registered=st.sampled_from(REGISTERED),
        authenticated=st.sampled_from(REGISTERED),
        socket_state=SOCKET_STATES,
        mode=st.sampled_from(MODES),
        info=st.sampled_from(INFOS),
        me=st.sampled_from([None, "15551234567@c.us"]),
        needs_update=st.booleans(),
        passkey_required=st.booleans(),
    ),
)
SIGNALS = st.sampled_from(
    [None, "logout", "unknown_companion", "web_fail_storage_initialization", "syncd_failure"]
)


@given(
    st.lists(st.tuples(OBSERVATIONS, st.none() | SIGNALS, st.integers(0, 200)), max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_invariants(
    observations: list[tuple[PageObservation | PageUnavailable, str | None, int]],
    stored: bool,
    by_code: bool,
) -> None:
    state, policy, now = STORED if stored else FRESH, BY_CODE if by_code else POLICY, NOW
    for observed, signal, seconds in observations:
        now += timedelta(seconds=seconds)
        if signal:
            state = transitions.logout_signal(state, signal)
        before, (state, actions) = state, decide(state, observed, now, policy)
        if before.session_valid and not state.session_valid:
            assert before.logout_reason in ENDED_BY_WHATSAPP, "a login ends by two signals only"
            assert isinstance(observed, PageObservation)
            assert observed.registered is False
            assert actions == [Action.QUARANTINE_PROFILE]
        if state.phase is Phase.READY and before.phase is not Phase.READY:
            assert isinstance(observed, PageObservation)
            assert observed.healthy
            assert state.login_written
        if state.outage is not None and state.outage.due is not None and not actions:
            assert state.outage.due > now, "a due step is taken"
        for action in actions:
            match action:
                case Action.FETCH_CODE:
                    state = issued(state, now + MINUTE, policy)
                case Step():
                    state = transitions.page_opening(state, now)


# --- the login ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interrupted",
    [
        lambda state: transitions.failed(state, "BrowserHung", "", Step.RESTART, NOW, POLICY),
        lambda state: transitions.unreachable(state, "WhatsAppUnreachable", "", NOW, POLICY),
    ],
    ids=["failed", "unreachable"],
)
@pytest.mark.parametrize("before", [FRESH, CODE_ISSUED, issued(STORED, NOW + MINUTE)])
def test_a_login_whose_writing_was_interrupted_is_written_again(
    before: State, interrupted: Callable[[State], State]
) -> None:
    state, actions = settle(before, GOOD)
    assert actions == [Action.RECYCLE_PAGE]
    state, actions = settle(interrupted(state), GOOD)
    assert actions == [Action.RECYCLE_PAGE]
    assert state.phase is not Phase.READY


def test_a_stored_login_is_restored() -> None:
    state, actions = settle(STORED, GOOD)
    assert (state.phase, state.restored, state.session_valid) == (Phase.READY, True, True)
    assert actions == []
    assert state.last_connected == NOW + SECOND


def test_a_page_healthy_for_a_moment_is_not_ready() -> None:
    state, actions = decide(STORED, GOOD, NOW, POLICY)
    assert state.phase is Phase.RESTORING
    assert actions == []


def test_a_new_login_is_written_before_it_is_valid() -> None:
    state, actions = settle(CODE_ISSUED, GOOD)
    assert actions == [Action.RECYCLE_PAGE]
    assert (state.phase, state.reason, state.session_valid) == (
        Phase.SYNCING,
        Reason.LOGIN_WRITING,
        False,
    )
    state, actions = settle(state, GOOD, NOW + 5 * SECOND)
    assert actions == [Action.RECORD_LOGIN]
    assert (state.phase, state.session_valid, state.restored) == (Phase.READY, True, False)


def test_a_login_that_was_not_written_is_written_again() -> None:
    state, _ = settle(CODE_ISSUED, GOOD)
    state = transitions.login_not_written(state, NOW, POLICY)
    assert state.reason == Reason.LOGIN_WRITING
    _, actions = settle(state, GOOD, NOW + 5 * SECOND)
    assert actions == [Action.RECYCLE_PAGE]


def test_a_login_that_is_never_written_is_reported_and_tried_with_a_backoff() -> None:
    state, now, attempts = CODE_ISSUED, NOW, []
    while now < NOW + HOUR:
        state, actions = decide(state, GOOD, now, POLICY)
        assert Action.RECORD_LOGIN not in actions
        if actions == [Action.RECYCLE_PAGE]:
            attempts.append(now)
            state = transitions.login_not_written(state, now, POLICY)
        reported = len(attempts) >= transitions.WRITE_ATTEMPTS
        if attempts:
            reason = Reason.LOGIN_NOT_WRITTEN if reported else Reason.LOGIN_WRITING
            assert (state.phase, state.reason) == (Phase.SYNCING, reason)
        assert not state.session_valid
        now += SECOND
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= POLICY.backoff.maximum
    state, _ = settle(state, GOOD, now + POLICY.backoff.maximum)
    state, actions = settle(state, GOOD, now + POLICY.backoff.maximum + MINUTE)
    assert actions == [Action.RECORD_LOGIN]
    assert (state.phase, state.session_valid, state.write_failures) == (Phase.READY, True, 0)


def test_a_valid_login_need_not_be_written_again() -> None:
    assert transitions.login_not_written(READY, NOW, POLICY) is READY


def test_a_page_that_is_opened_anew_before_that_has_still_to_write() -> None:
    state, _ = settle(CODE_ISSUED, GOOD)
    _, actions = settle(transitions.page_opening(state, NOW), GOOD, NOW + 5 * SECOND)
    assert actions == [Action.RECYCLE_PAGE]


def test_a_login_lost_without_a_logout_is_reported() -> None:
    state = issued(STORED, NOW + MINUTE)
    assert (state.phase, state.reason) == (Phase.AUTHENTICATING, Reason.RESTORATION_FAILED)
    assert state.session_valid
    assert not state.restored


def test_a_profile_that_has_lost_its_login_is_replaced_once() -> None:
    state, actions = decide(WITH_SNAPSHOT, QR, NOW, POLICY)
    assert actions == []
    state, actions = decide(state, QR, NOW + 4 * SECOND, POLICY)
    assert actions == []
    state, actions = decide(state, QR, NOW + 5 * SECOND, POLICY)
    assert actions == [Action.FALL_BACK]
    assert (state.phase, state.reason, state.session_valid) == (
        Phase.RESTORING,
        Reason.PROFILE_DAMAGED,
        True,
    )
    state = transitions.page_opening(
        transitions.profile_selected(state, "from the snapshot", can_fall_back=True), NOW
    )
    assert (state.phase, state.reason, state.message) == (
        Phase.RESTORING,
        Reason.PROFILE_DAMAGED,
        "from the snapshot",
    )
    ready, actions = settle(state, GOOD)
    assert actions == [Action.CONFIRM_REPAIR]
    assert ready.restored
    assert [warning.reason for warning in warnings(ready, NOW)] == [Reason.PROFILE_DAMAGED]
    _, actions = settle(decide(ready, OPENING, NOW + MINUTE, POLICY)[0], GOOD, NOW + MINUTE)
    assert actions == []


def test_a_qr_that_is_there_for_a_moment_only_replaces_nothing() -> None:
    state, _ = decide(WITH_SNAPSHOT, QR, NOW, POLICY)
    state, _ = decide(state, OPENING, NOW + SECOND, POLICY)
    state, actions = decide(state, QR, NOW + 6 * SECOND, POLICY)
    assert actions == []


def test_when_nothing_is_left_to_try_a_phone_is_linked_and_its_login_recorded() -> None:
    state = transitions.page_opening(
        transitions.profile_selected(WITH_SNAPSHOT, "nothing is left", can_fall_back=False), NOW
    )
    state, actions = decide(state, QR, NOW, POLICY)
    assert actions == [Action.FETCH_CODE]
    state = issued(state, NOW + MINUTE)
    assert (state.phase, state.reason, state.session_valid) == (
        Phase.AUTHENTICATING,
        Reason.RESTORATION_FAILED,
        True,
    )
    state, actions = settle(state, GOOD)
    assert actions == [Action.RECYCLE_PAGE], "it is another login, which has to be written"
    state, actions = settle(transitions.page_opening(state, NOW), GOOD)
    assert actions == [Action.RECYCLE_PAGE], "still not"
    state, actions = settle(state, GOOD, NOW + MINUTE)
    assert actions == [Action.RECORD_LOGIN]
    assert not state.restored


def test_an_ended_login_leaves_nothing_to_fall_back_to() -> None:
    state = transitions.logout_signal(
        transitions.profile_selected(WITH_SNAPSHOT, "from the snapshot", can_fall_back=True), None
    )
    state, actions = decide(state, QR, NOW, POLICY)
    assert actions == [Action.QUARANTINE_PROFILE]
    _, actions = decide(state, QR, NOW + MINUTE, POLICY)
    assert actions == [Action.FETCH_CODE]
    assert warnings(state, NOW) == []


def test_a_volume_that_fills_up_is_a_warning() -> None:
    notice = Notice(reason=Reason.VOLUME_LOW, message="soon")
    assert warnings(transitions.volume_checked(READY, notice), NOW) == [notice]
    assert (
        warnings(transitions.volume_checked(transitions.volume_checked(READY, notice), None), NOW)
        == []
    )


@pytest.mark.parametrize(
    ("signals", "requested", "unseen", "reason", "word"),
    [
        ([None], False, 0, Reason.LOGGED_OUT_BY_PHONE, "logout"),
        (
            ["logout", "unknown_companion", "logout"],
            False,
            0,
            Reason.LOGGED_OUT_BY_PHONE,
            "unknown_companion",
        ),
        (["user_initiated"], True, 0, Reason.LOGGED_OUT_ON_REQUEST, "user_initiated"),
        (["account_locked"], False, 0, Reason.ACCOUNT_LOCKED, "account_locked"),
        ([None], False, 13, Reason.LOGGED_OUT_BY_PHONE, "logout"),
        ([None], False, 14, Reason.PHONE_OFFLINE, "logout"),
    ],
)
def test_two_signals_are_a_logout(
    signals: list[str | None], requested: bool, unseen: int, reason: Reason, word: str
) -> None:
    state = transitions.phone_seen(
        transitions.logout_requested(READY, requested), NOW - unseen * DAY
    )
    for logout_reason in signals:
        state = transitions.logout_signal(state, logout_reason)
    state, actions = decide(state, QR, NOW, POLICY)
    assert (state.phase, state.reason, state.session_valid, actions) == (
        Phase.LOGGED_OUT,
        reason,
        False,
        [Action.QUARANTINE_PROFILE],
    )
    assert state.last_disconnect is not None
    assert (state.last_disconnect.kind, state.last_disconnect.reason) == (
        DisconnectKind.LOGOUT,
        word,
    )
    assert (state.account, state.phone_last_seen, state.logout_reason) == (None, None, None)


@pytest.mark.parametrize(
    "word", ["web_fail_storage_initialization", "client_fatal", "syncd_failure", "unknown_value"]
)
def test_a_login_that_the_page_has_dropped_may_still_be_good(word: str) -> None:
    state, actions = decide(transitions.logout_signal(READY, word), QR, NOW, POLICY)
    assert (state.phase, state.reason, state.session_valid) == (
        Phase.RESTORING,
        Reason.PROFILE_DAMAGED,
        True,
    )
    assert actions == [Action.FALL_BACK]
    assert state.last_disconnect is not None
    assert (state.last_disconnect.kind, state.last_disconnect.reason) == (
        DisconnectKind.CRASH,
        word,
    )
    again, _ = settle(transitions.page_opening(state, NOW), GOOD, NOW + MINUTE)
    assert (again.phase, again.restored) == (Phase.READY, True)


def test_a_logout_that_did_not_happen_is_forgotten() -> None:
    state, _ = settle(HALF_LOGGED_OUT, GOOD)
    _, actions = decide(state, QR, NOW + MINUTE, POLICY)
    assert Action.QUARANTINE_PROFILE not in actions


def test_a_login_that_should_be_there_and_is_not_is_reported() -> None:
    """As after the loss of a volume: the operator expects a login, the volume has none."""
    state = issued(initial(has_login=False, restoring=True, now=NOW), NOW + MINUTE)
    assert (state.phase, state.reason, state.session_valid) == (
        Phase.AUTHENTICATING,
        Reason.LOGIN_MISSING,
        False,
    )


# --- codes ----------------------------------------------------------------------------------------


def test_codes_are_renewed_until_the_last_round() -> None:
    state, actions = decide(FRESH, QR, NOW, POLICY)
    assert actions == [Action.FETCH_CODE]
    for number in (1, 2):
        state = issued(state, NOW + MINUTE)
        assert (state.phase, state.round) == (Phase.AUTHENTICATING, number)
        state, actions = decide(state, IDLE, NOW, POLICY)
    assert (state.phase, state.reason, actions) == (Phase.FAILED, Reason.PAIRING_EXPIRED, [])
    _, actions = decide(state, QR, NOW + HOUR, POLICY)
    assert actions == [], "nothing happens until somebody asks for it"
    crashed = transitions.failed(state, Reason.PAGE_CRASHED, "", Step.RELOAD, NOW, POLICY)
    state, actions = decide(transitions.page_opening(crashed, NOW), QR, NOW, POLICY)
    assert (state.reason, actions) == (Reason.PAIRING_EXPIRED, []), "not even after a crash"
    state, actions = decide(transitions.code_requested(state), QR, NOW, POLICY)
    assert actions == [Action.FETCH_CODE]
    assert issued(state, NOW + MINUTE).round == 1


def test_a_qr_that_changes_is_the_same_round() -> None:
    state, actions = decide(issued(FRESH, NOW + SECOND), QR, NOW + 2 * SECOND, POLICY)
    assert actions == [Action.FETCH_CODE]
    assert issued(state, NOW + MINUTE).round == 1


def test_a_qr_that_does_not_change_any_more_is_taken_away() -> None:
    state, _ = decide(issued(FRESH, NOW), QR, NOW + 29 * SECOND, POLICY)
    assert state.code_expires_at is not None
    state, _ = decide(state, QR, NOW + 30 * SECOND, POLICY)
    assert state.code_expires_at is None
    state, actions = decide(state, QR, NOW + 30 * SECOND + 2 * MINUTE, POLICY)
    assert (state.reason, actions) == (Reason.INITIALIZATION_TIMEOUT, [])
    assert state.outage is not None
    assert state.outage.step is Step.RELOAD


def test_a_qr_that_is_not_renewed_leads_to_a_fresh_page() -> None:
    state, actions = decide(CODE_ISSUED, IDLE, NOW, POLICY)
    assert actions == [Action.RENEW_CODE]
    state, actions = decide(state, IDLE, NOW + 119 * SECOND, POLICY)
    assert (state.outage, actions) == (None, [])
    state, _ = decide(state, IDLE, NOW + 120 * SECOND, POLICY)
    assert state.outage is not None
    assert state.outage.step is Step.RELOAD


def test_a_pairing_code_lives_until_it_expires_and_is_then_renewed() -> None:
    state = issued(FRESH, NOW + 195 * SECOND, BY_CODE)
    assert (state.phase, state.reason) == (Phase.AUTHENTICATING, Reason.WAITING_FOR_PAIRING_CODE)
    _, actions = decide(state, IDLE, NOW + 194 * SECOND, BY_CODE)
    assert Action.RENEW_CODE not in actions, "the QRs that nobody sees are used up earlier"
    state, actions = decide(state, IDLE, NOW + 195 * SECOND, BY_CODE)
    assert actions == [Action.RENEW_CODE]
    state, actions = decide(state, QR, NOW + 196 * SECOND, BY_CODE)
    assert actions == [Action.FETCH_CODE]
    assert issued(state, NOW + 2 * MINUTE, BY_CODE).round == 2


def test_pairing_codes_have_rounds_too() -> None:
    state = replace(issued(FRESH, NOW + SECOND, BY_CODE), round=2)
    state, actions = decide(state, QR, NOW + MINUTE, BY_CODE)
    assert (state.phase, state.reason, actions) == (Phase.FAILED, Reason.PAIRING_EXPIRED, [])


def test_requests_for_a_code_back_off() -> None:
    state = transitions.code_failed(
        transitions.code_failed(FRESH, "too many", NOW, BY_CODE), "too many", NOW, BY_CODE
    )
    assert decide(state, QR, NOW + 3 * SECOND, BY_CODE)[1] == []
    assert decide(state, QR, NOW + 4 * SECOND, BY_CODE)[1] == [Action.FETCH_CODE]
    assert issued(state, NOW + MINUTE, BY_CODE).next_code_at is None


def test_a_passkey_may_be_abandoned_for_another_code() -> None:
    state, _ = decide(CODE_ISSUED, PASSKEY, NOW, POLICY)
    _, actions = decide(state, QR, NOW, POLICY)
    assert actions == [Action.FETCH_CODE]


# --- conflicts ------------------------------------------------------------------------------------


def stood_down(policy: Policy = POLICY) -> State:
    """Return the state of a session that was displaced, after as many takeovers as it may make."""
    state, now = READY, NOW
    while not state.stood_down:
        state, actions = decide(state, CONFLICT, now, policy)
        now += MINUTE
    assert actions == [Action.STAND_DOWN]
    return state


def test_takeover_never() -> None:
    state, actions = decide(READY, CONFLICT, NOW, POLICY)
    assert (state.phase, actions) == (Phase.CONFLICT, [Action.STAND_DOWN])
    assert state.reason == Reason.LOGIN_IN_USE_ELSEWHERE
    assert state.session_valid, "the login is not this browser's to judge"
    assert state.last_disconnect is not None
    assert state.last_disconnect.kind is DisconnectKind.CONFLICT


@pytest.mark.parametrize("observed", [CONFLICT, GOOD, QR, *PageUnavailable])
@pytest.mark.parametrize("takeover", Takeover)
def test_who_has_stood_down_stays_so(
    observed: PageObservation | PageUnavailable, takeover: Takeover
) -> None:
    policy = replace(POLICY, takeover=takeover)
    before = stood_down(policy)
    state = transitions.logout_signal(before, "logout")
    state = transitions.failed(state, "BrowserCrashed", "", Step.RESTART, NOW, policy)
    state = transitions.code_requested(state)
    for days in (0, 1, 100):
        state, actions = decide(state, observed, NOW + days * DAY, policy)
        assert (state.phase, state.reason, actions) == (before.phase, before.reason, [])
    assert state.session_valid


def test_a_person_brings_it_back() -> None:
    state = transitions.restart_requested(stood_down())
    state, _ = settle(transitions.page_opening(state, NOW), GOOD, NOW + DAY)
    assert state.phase is Phase.READY


@pytest.mark.parametrize("takeover", [Takeover.ONCE, Takeover.ALWAYS])
def test_two_that_take_over_from_each_other_do_not_go_on(takeover: Takeover) -> None:
    """Each is Ready for a while in between, so that the delays begin anew."""
    policy, state, now, count = replace(POLICY, takeover=takeover), READY, NOW, 0
    while not state.stood_down:
        state, actions = decide(state, CONFLICT, now, policy)
        count += actions == [Action.TAKE_OVER]
        now += HOUR
        state, _ = settle(state, GOOD, now)
        state, _ = decide(state, GOOD, now + 30 * MINUTE, policy)
        now += HOUR
    assert count == transitions.MAXIMUM_TAKEOVERS


def test_who_opens_the_login_elsewhere_each_day_is_no_other_browser() -> None:
    policy, state = replace(POLICY, takeover=Takeover.ALWAYS), READY
    for day in range(10):
        state, actions = decide(state, CONFLICT, NOW + day * DAY, policy)
        assert actions == [Action.TAKE_OVER]
        state, _ = settle(state, GOOD, NOW + day * DAY + MINUTE)
        state, _ = decide(state, GOOD, NOW + day * DAY + HOUR, policy)


def test_takeover_once_an_hour() -> None:
    once = replace(POLICY, takeover=Takeover.ONCE)
    state, actions = decide(READY, CONFLICT, NOW, once)
    assert actions == [Action.TAKE_OVER]
    assert decide(state, CONFLICT, NOW + 59 * MINUTE, once)[1] == []
    assert decide(state, CONFLICT, NOW + 60 * MINUTE, once)[1] == [Action.TAKE_OVER]


def test_takeover_always_backs_off() -> None:
    always = replace(POLICY, takeover=Takeover.ALWAYS)
    state, now, pauses = READY, NOW, []
    for _ in range(4):
        start = now
        while True:
            state, actions = decide(state, CONFLICT, now, always)
            if actions:
                break
            now += SECOND
        pauses.append((now - start).total_seconds())
    assert pauses == [0, 2, 4, 8]
    state, _ = settle(state, GOOD, now)
    state, _ = decide(state, GOOD, now + HOUR, always)
    state, actions = decide(state, CONFLICT, now + HOUR, always)
    assert actions == [Action.TAKE_OVER], "a long time of Ready resets the backoff"


# --- outages --------------------------------------------------------------------------------------


def test_a_lost_connection_is_left_to_the_page_first() -> None:
    state = RECONNECTING
    assert state.last_disconnect is not None
    assert state.last_disconnect.kind is DisconnectKind.CONNECTION
    patience = POLICY.backoff.page_patience
    state, actions = decide(state, OPENING, NOW + patience - SECOND, POLICY)
    assert actions == []
    again, _ = settle(state, GOOD, NOW + patience - SECOND)
    assert again.phase is Phase.READY
    assert again.outage is not None
    assert again.outage.due is None
    assert transitions.page_recovered(
        state, decide(state, GOOD, NOW + patience - SECOND, POLICY)[0]
    )
    state, actions = decide(state, OPENING, NOW + patience, POLICY)
    assert actions == [Step.RELOAD]
    assert not transitions.page_recovered(
        state, decide(transitions.page_opening(state, NOW), GOOD, NOW + patience, POLICY)[0]
    )


def test_a_connection_that_never_comes_back_ends_the_process() -> None:
    state, now, steps = READY, NOW, []
    while Step.EXIT not in steps:
        state, actions = decide(state, OPENING, now, POLICY)
        for action in actions:
            assert isinstance(action, Step)
            steps.append(action)
            state = transitions.page_opening(state, now)
        now += 5 * SECOND
    assert steps == [Step.RELOAD] * LIMITS[Step.RELOAD] + [Step.RESTART] * LIMITS[Step.RESTART] + [
        Step.EXIT
    ]
    assert 10 * MINUTE < now - NOW < HOUR
    assert state.session_valid


def test_whatsapp_that_cannot_be_reached_never_ends_the_process() -> None:
    state, now, steps = READY, NOW, set()
    for _ in range(1000):
        state = transitions.unreachable(
            state, Reason.WHATSAPP_UNREACHABLE, "net::ERR_NAME_NOT_RESOLVED", now, POLICY
        )
        assert (state.phase, state.reason) == (Phase.RESTORING, Reason.WHATSAPP_UNREACHABLE)
        assert state.outage is not None
        assert state.outage.due is not None
        now = state.outage.due
        state, actions = decide(state, PageUnavailable.LOADING, now, POLICY)
        steps.update(actions)
    assert steps == {Step.OPEN}


@pytest.mark.parametrize("unavailable", [PageUnavailable.HUNG, PageUnavailable.CLOSED])
def test_a_ready_page_that_does_not_answer_is_recovered_soon(unavailable: PageUnavailable) -> None:
    state, actions = decide(READY, unavailable, NOW, POLICY)
    assert actions == []
    assert state.session_valid
    _, actions = decide(state, unavailable, NOW + 2 * SECOND, POLICY)
    assert actions == [Step.RELOAD if unavailable is PageUnavailable.HUNG else Step.RESTART]


def test_a_page_that_answers_again_is_left_alone() -> None:
    state, _ = decide(READY, PageUnavailable.HUNG, NOW, POLICY)
    state, actions = settle(state, GOOD, NOW + 2 * SECOND)
    assert (state.phase, actions) == (Phase.READY, [])


def test_a_page_that_is_loading_has_its_time() -> None:
    assert decide(STORED, PageUnavailable.HUNG, NOW + 119 * SECOND, POLICY) == (STORED, [])
    state, actions = decide(STORED, PageUnavailable.HUNG, NOW + 120 * SECOND, POLICY)
    assert (state.reason, actions) == (Reason.INITIALIZATION_TIMEOUT, [])
    assert state.session_valid
    assert state.outage is not None
    assert state.outage.step is Step.RELOAD


def test_an_incompatible_page_differs_from_one_that_does_not_answer() -> None:
    blank = observation(injected=False)
    state, actions = decide(STORED, blank, NOW + 120 * SECOND, POLICY)
    assert (state.phase, state.reason, actions) == (
        Phase.FAILED,
        Reason.PAGE_INCOMPATIBLE,
        [Step.RELOAD],
    )
    assert state.session_valid


FAILED_SCRIPTS = ScriptFault(
    Reason.WHATSAPP_UNREACHABLE, "its scripts do not come from static.whatsapp.net (HTTP 404)"
)


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("before", [FRESH, STORED, READY])
def test_a_page_without_its_scripts_is_opened_again_until_they_come(
    before: State, pending: bool
) -> None:
    blank = observation(injected=False).model_copy(
        update={"script_fault": FAILED_SCRIPTS._replace(pending=pending)}
    )
    state, now, opened = before, NOW, []
    while now < NOW + HOUR:
        state, actions = decide(state, blank, now, POLICY)
        assert state.phase is not Phase.FAILED
        assert state.session_valid == before.session_valid
        if actions:
            assert (state.reason, actions) == (Reason.WHATSAPP_UNREACHABLE, [Step.OPEN])
            assert "static.whatsapp.net" in state.message
            opened.append(now)
            state = transitions.page_opening(state, now)
        now += 5 * SECOND
    patience = POLICY.initialization_timeout if pending else transitions.SCRIPTS_GRACE
    pauses = [after - before for before, after in itertools.pairwise([NOW, *opened])]
    assert pauses[0] <= patience + 10 * SECOND
    assert pauses[-1] <= patience + POLICY.backoff.maximum + 10 * SECOND
    state, _ = settle(state, GOOD, now)
    state, _ = settle(state, GOOD, now + MINUTE)
    assert state.phase is Phase.READY


def test_a_page_that_does_without_a_script_is_left_alone() -> None:
    blank = observation(injected=False).model_copy(update={"script_fault": FAILED_SCRIPTS})
    state, actions = decide(STORED, blank, NOW + SECOND, POLICY)
    assert (state, actions) == (STORED, [])
    working = GOOD.model_copy(update={"script_fault": FAILED_SCRIPTS})
    assert settle(state, working, NOW + 2 * SECOND)[0].phase is Phase.READY


def test_the_page_does_not_say_which_scripts_have_failed() -> None:
    said = PageObservation.model_validate({"scriptFault": ["Connected", "all is well"]})
    assert said.script_fault is None


OUTDATED = observation(
    socket_state="DEPRECATED_VERSION", mode="DEPRECATED_VERSION", needs_update=True
)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (OUTDATED, Reason.VERSION_REFUSED),
        (observation(injected=False), Reason.PAGE_INCOMPATIBLE),
        (observation(me=None), Reason.PAGE_INCOMPATIBLE),
    ],
)
def test_a_page_of_the_wrong_version_is_reloaded_with_a_backoff(
    wrong: PageObservation, reason: Reason
) -> None:
    state, now, reloads = replace(STORED, recorded_account=None, new_login=True), NOW, []
    while now < NOW + 8 * HOUR:
        state, actions = decide(state, wrong, now, POLICY)
        if actions:
            assert (state.phase, state.reason, actions) == (Phase.FAILED, reason, [Step.RELOAD])
            reloads.append(now)
            state = transitions.page_opening(state, now)
        now += 5 * SECOND
    pauses = [after - before for before, after in itertools.pairwise(reloads)]
    assert reloads[0] <= NOW + POLICY.initialization_timeout
    assert pauses[0] <= POLICY.initialization_timeout, "a version is often replaced within minutes"
    assert pauses == sorted(pauses)
    assert HOUR <= pauses[-1] < HOUR + 2 * MINUTE
    state, _ = settle(state, GOOD, now)
    state, _ = settle(state, GOOD, now + MINUTE)
    assert (state.phase, state.blocked_reloads) == (Phase.READY, 0)


def test_a_block_is_tried_again_after_an_hour() -> None:
    blocked = observation(socket_state="TOS_BLOCK", mode="TOS_BLOCK")
    state, actions = decide(READY, blocked, NOW, POLICY)
    assert actions == []
    assert decide(state, blocked, NOW + 59 * MINUTE, POLICY)[1] == []
    assert decide(state, blocked, NOW + HOUR, POLICY)[1] == [Step.RELOAD]


def test_a_ban_is_waited_out() -> None:
    banned = OPENING.model_copy(update={"banned_until": (NOW + HOUR).timestamp()})
    state, now = READY, NOW
    while now < NOW + HOUR:
        state, actions = decide(state, banned, now, POLICY)
        assert (state.phase, state.reason, actions) == (Phase.FAILED, Reason.ACCOUNT_BANNED, [])
        now += MINUTE
    state, _ = decide(state, banned, now, POLICY)
    assert state.phase is Phase.RECONNECTING


def test_messages_may_take_long_to_load_but_not_for_ever() -> None:
    loading = observation(mode="SYNCING", info="SYNCING")
    state, _ = decide(STORED, loading, NOW, POLICY)
    state, actions = decide(state, loading, NOW + 14 * MINUTE, POLICY)
    assert (state.reason, actions) == (Reason.MESSAGES_SYNCING, [])
    state, _ = decide(state, loading, NOW + 15 * MINUTE, POLICY)
    assert state.outage is not None
    assert state.outage.step is Step.RELOAD


def test_loading_messages_is_not_stuck_while_it_progresses() -> None:
    state, now = STORED, NOW
    for percent in range(1, 100):
        loading = observation(mode="SYNCING", info="SYNCING", sync_progress=percent)
        state, actions = decide(state, loading, now, POLICY)
        assert (state.reason, actions) == (Reason.MESSAGES_SYNCING, [])
        now += 14 * MINUTE
    state, _ = decide(state, loading, now + 2 * MINUTE, POLICY)
    assert state.outage is not None
    assert state.outage.step is Step.RELOAD


def test_an_outage_is_forgotten_after_ten_minutes_of_ready() -> None:
    state, _ = decide(READY, PageUnavailable.CLOSED, NOW, POLICY)
    state, _ = settle(transitions.page_opening(state, NOW), GOOD, NOW)
    state, _ = decide(state, GOOD, NOW + 10 * MINUTE, POLICY)
    assert state.outage is not None
    state, _ = decide(state, GOOD, NOW + 10 * MINUTE + SECOND, POLICY)
    assert state.outage is None


def test_a_session_without_its_browser_is_not_connected() -> None:
    for state in (
        transitions.not_startable(READY, Reason.VOLUME_FULL, "", NOW, POLICY),
        transitions.not_startable(READY, Reason.SANDBOX_UNAVAILABLE, "", NOW, POLICY),
    ):
        assert state.last_disconnect is not None
        assert state.last_disconnect.reason == state.reason
        assert (state.auth_state, state.is_authenticated) == (None, False)
        assert state.healthy_since is None
        assert state.session_valid


def test_a_full_volume_is_tried_again_for_ever() -> None:
    state, now = STORED, NOW
    for _ in range(100):
        state = transitions.not_startable(state, Reason.VOLUME_FULL, "", now, POLICY)
        assert state.outage is not None
        assert state.outage.due is not None
        now = state.outage.due
        state, actions = decide(state, PageUnavailable.CLOSED, now, POLICY)
        assert (state.phase, state.reason, actions) == (
            Phase.FAILED,
            Reason.VOLUME_FULL,
            [Step.START],
        )


@pytest.mark.parametrize("reason", [Reason.SANDBOX_UNAVAILABLE, Reason.PROXY_INVALID])
@pytest.mark.parametrize("before", [FRESH, STORED])
def test_what_a_start_requires_is_waited_for_for_ever(before: State, reason: Reason) -> None:
    state, now = before, NOW
    for _ in range(100):
        state = transitions.not_startable(state, reason, "missing", now, POLICY)
        assert state.outage is not None
        assert state.outage.due is not None
        now = state.outage.due
        state, actions = decide(state, PageUnavailable.CLOSED, now, POLICY)
        assert (state.phase, state.reason) == (Phase.FAILED, reason)
        assert (state.session_valid, actions) == (before.session_valid, [Step.START])


def test_a_start_that_a_file_has_prevented_is_due_when_the_file_changes() -> None:
    state = transitions.not_startable(READY, Reason.PROXY_INVALID, "missing", NOW, POLICY)
    _, actions = decide(state, PageUnavailable.CLOSED, NOW, POLICY)
    assert actions == []
    state = transitions.start_due(state, NOW)
    _, actions = decide(state, PageUnavailable.CLOSED, NOW, POLICY)
    assert actions == [Step.START]


def test_a_changed_file_is_a_warning_until_the_browser_has_started_with_it() -> None:
    changed = Notice(reason=Reason.PROXY_CHANGED, message="changed")
    state = transitions.launch_files_checked(READY, (changed,))
    assert warnings(state, NOW) == [changed]
    assert warnings(transitions.launch_files_checked(state, ()), NOW) == []


# --- the phone ------------------------------------------------------------------------------------


def test_linking_counts_as_activity_of_the_phone() -> None:
    state, _ = settle(CODE_ISSUED, GOOD)
    state, _ = settle(state, GOOD, NOW + MINUTE)
    assert state.phone_last_seen == NOW + MINUTE + SECOND
    again, _ = settle(transitions.page_opening(state, NOW), GOOD, NOW + DAY)
    assert again.phone_last_seen == state.phone_last_seen, "a restored login needs no phone"


def test_the_phones_activity_is_recorded_once_an_hour() -> None:
    state = transitions.phone_seen(READY, NOW)
    assert transitions.phone_seen(state, NOW + 59 * MINUTE) is state
    assert transitions.phone_seen(state, NOW - DAY) is state
    assert transitions.phone_seen(state, NOW + HOUR).phone_last_seen == NOW + HOUR


@pytest.mark.parametrize(("days", "warned"), [(9.9, False), (10, True), (13.5, True)])
def test_a_phone_unused_for_ten_days_is_a_warning(days: float, warned: bool) -> None:
    state = transitions.phone_seen(READY, NOW)
    notices = warnings(state, NOW + days * DAY)
    assert [warning.reason for warning in notices] == ([Reason.PHONE_OFFLINE] if warned else [])
    if warned:
        assert f"{int(days)} days ago" in notices[0].message
    assert warnings(replace(state, session_valid=False), NOW + days * DAY) == []


def test_warnings_come_in_a_stable_order() -> None:
    notice = Notice(reason=Reason.VOLUME_LOW, message="low")
    state = replace(
        READY,
        phone_last_seen=NOW - 11 * DAY,
        memory=Memory(used=95, limit=100),
        unheard=("MsgStore",),
        unheard_since=NOW - MINUTE,
        page_reloads=(NOW,) * 5,
        repair_message="repaired",
        volume_warning=notice,
    )
    order = [warning.reason for warning in warnings(state, NOW)]
    assert order == [
        Reason.PHONE_OFFLINE,
        Reason.MEMORY_LOW,
        Reason.MESSAGES_NOT_HEARD,
        Reason.PAGE_RELOADING,
        Reason.PROFILE_DAMAGED,
        Reason.VOLUME_LOW,
    ]
    without = replace(state, memory=None, unheard=(), unheard_since=None)
    assert [warning.reason for warning in warnings(without, NOW)] == [
        reason for reason in order if reason not in (Reason.MEMORY_LOW, Reason.MESSAGES_NOT_HEARD)
    ]
