"""The session pod's decisions: what the page says, and what follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_api.v1alpha1 import DisconnectKind, PairingMethod, Phase, Reason, Takeover
from wasession_pod import state as states
from wasession_pod.snapshot import Snapshot
from wasession_pod.state import Action, Policy, State, step

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = Policy(timedelta(minutes=2), max_rounds=2, method=PairingMethod.QR_CODE, takeover=Takeover.NEVER)


def seen(**fields: Any) -> Snapshot:
    good: dict[str, Any] = {
        "injected": True,
        "registered": True,
        "authenticated": True,
        "socket_state": "CONNECTED",
        "mode": "MAIN",
        "info": "NORMAL",
        "me": "15551234567@c.us",
    }
    return Snapshot(**good | fields)


QR = seen(registered=False, authenticated=False, mode="QR", socket_state="UNPAIRED", me=None)
FRESH = states.initial(has_login=False, restoring=False, now=NOW)
STORED = states.browser_started(states.initial(has_login=True, restoring=True, now=NOW), NOW)


def settle(state: State, snapshot: Snapshot, now: datetime = NOW, policy: Policy = POLICY) -> tuple[State, list[Action]]:
    """The same look twice, far enough apart to count as stable."""
    state, first = step(state, snapshot, now, policy)
    state, second = step(state, snapshot, now + SECOND, policy)
    return state, first + second


def ready() -> State:
    state, _ = settle(STORED, seen())
    assert state.phase is Phase.READY
    return state


def test_a_stored_login_is_restored() -> None:
    state, actions = settle(STORED, seen())
    assert (state.phase, state.restored, state.session_valid) == (Phase.READY, True, True)
    assert actions == []
    assert state.last_connected == NOW + SECOND


def test_a_moment_of_good_is_not_ready() -> None:
    state, actions = step(STORED, seen(), NOW, POLICY)
    assert state.phase is Phase.RESTORING
    assert actions == []


@pytest.mark.parametrize(
    "missing",
    [
        {"registered": None},
        {"mode": "SYNCING"},
        {"info": "OPENING"},
        {"socket_state": "OPENING"},
        {"me": None},
        {"injected": False},
    ],
)
def test_every_signal_is_needed_for_ready(missing: dict[str, Any]) -> None:
    state, _ = settle(STORED, seen(**missing))
    assert state.phase is not Phase.READY


def test_a_new_login_is_written_before_it_is_valid() -> None:
    state = states.code_offered(states.browser_started(FRESH, NOW), NOW + timedelta(minutes=1))
    state, actions = settle(state, seen())
    assert actions == [Action.RECYCLE]
    assert (state.phase, state.reason, state.session_valid) == (Phase.SYNCING, Reason.LOGIN_WRITING, False)
    state, actions = settle(state, seen(), NOW + timedelta(seconds=5))
    assert actions == [Action.KEEP_LOGIN]
    assert (state.phase, state.session_valid, state.restored) == (Phase.READY, True, False)


def test_a_login_that_was_not_written_is_written_again() -> None:
    state = states.code_offered(states.browser_started(FRESH, NOW), NOW + timedelta(minutes=1))
    state, _ = settle(state, seen())
    _, actions = settle(states.not_durable(state), seen(), NOW + timedelta(seconds=5))
    assert actions == [Action.RECYCLE]


def test_a_page_that_says_nothing_is_not_logged_out() -> None:
    state, actions = step(ready(), None, NOW + timedelta(hours=1), POLICY)
    assert (state.phase, state.session_valid) == (Phase.READY, True)
    assert actions == []


def test_one_signal_is_no_logout() -> None:
    state, _ = step(states.logout_signal(ready(), "unknown_companion"), seen(info="OPENING"), NOW, POLICY)
    assert state.session_valid
    state, _ = step(ready(), QR, NOW, POLICY)
    assert state.session_valid, "a page without a login has not said that WhatsApp ended it"


def test_two_signals_are_a_logout() -> None:
    state, actions = step(states.logout_signal(ready(), "unknown_companion"), QR, NOW, POLICY)
    assert (state.phase, state.session_valid) == (Phase.LOGGED_OUT, False)
    assert state.last_disconnect is not None
    assert (state.last_disconnect.kind, state.last_disconnect.reason) == (DisconnectKind.LOGOUT, "unknown_companion")
    assert actions == [Action.SET_ASIDE]


def test_a_login_that_is_gone_without_a_logout_is_reported() -> None:
    state = states.code_offered(STORED, NOW + timedelta(minutes=1))
    assert (state.phase, state.reason) == (Phase.AUTHENTICATING, Reason.RESTORATION_FAILED)
    assert state.session_valid
    assert not state.restored


def test_a_lost_connection_is_temporary() -> None:
    state, actions = step(ready(), seen(socket_state="OPENING", info="OPENING"), NOW, POLICY)
    assert (state.phase, state.session_valid) == (Phase.RECONNECTING, True)
    assert state.last_disconnect is not None
    assert state.last_disconnect.kind is DisconnectKind.CONNECTION
    assert actions == []
    again, _ = settle(state, seen(), NOW + timedelta(seconds=9))
    assert again.phase is Phase.READY


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("PROXYBLOCK", Reason.PROXY_BLOCKED),
        ("TOS_BLOCK", Reason.ACCOUNT_BLOCKED),
        ("SMB_TOS_BLOCK", Reason.ACCOUNT_BLOCKED),
        ("DEPRECATED_VERSION", Reason.VERSION_REFUSED),
    ],
)
def test_blocks_are_failures_that_keep_the_login(word: str, reason: Reason) -> None:
    state, _ = step(ready(), seen(socket_state=word, mode=word), NOW, POLICY)
    assert (state.phase, state.reason, state.session_valid) == (Phase.FAILED, reason, True)


def test_conflicts_by_policy() -> None:
    conflict = seen(socket_state="CONFLICT", mode="CONFLICT")
    state, actions = step(ready(), conflict, NOW, POLICY)
    assert (state.phase, actions) == (Phase.CONFLICT, [])
    once = replace(POLICY, takeover=Takeover.ONCE)
    state, actions = step(ready(), conflict, NOW, once)
    assert actions == [Action.TAKE_OVER]
    _, actions = step(state, conflict, NOW + timedelta(minutes=59), once)
    assert actions == []
    _, actions = step(state, conflict, NOW + timedelta(minutes=60), once)
    assert actions == [Action.TAKE_OVER]
    always = replace(POLICY, takeover=Takeover.ALWAYS)
    _, actions = step(state, conflict, NOW + SECOND, always)
    assert actions == [Action.TAKE_OVER]


def test_codes_are_renewed_until_the_last_round() -> None:
    idle = QR.model_copy(update={"socket_state": "UNPAIRED_IDLE"})
    state, actions = step(states.browser_started(FRESH, NOW), QR, NOW, POLICY)
    assert actions == [Action.FETCH_CODE]
    for number in (1, 2):
        state = states.code_offered(state, NOW + timedelta(minutes=1))
        assert (state.phase, state.round) == (Phase.AUTHENTICATING, number)
        state, actions = step(state, idle, NOW, POLICY)
    assert (state.phase, state.reason, actions) == (Phase.FAILED, Reason.PAIRING_EXPIRED, [])
    _, actions = step(state, QR, NOW, POLICY)
    assert actions == [], "nothing happens until somebody asks for it"


def test_a_qr_that_changes_is_the_same_round() -> None:
    state = states.code_offered(states.browser_started(FRESH, NOW), NOW + SECOND)
    state, actions = step(state, QR, NOW + 2 * SECOND, POLICY)
    assert actions == [Action.FETCH_CODE]
    assert states.code_offered(state, NOW + timedelta(minutes=1)).round == 1


def test_a_pairing_code_that_has_expired_is_renewed() -> None:
    policy = replace(POLICY, method=PairingMethod.PAIRING_CODE)
    state = states.code_offered(states.browser_started(FRESH, NOW), NOW + SECOND)
    state, actions = step(state, QR, NOW + 2 * SECOND, policy)
    assert actions == [Action.RENEW_CODE]
    assert states.code_offered(state, NOW + timedelta(minutes=1)).round == 2


def test_a_passkey_is_asked_for() -> None:
    state, actions = step(states.browser_started(FRESH, NOW), seen(registered=False, passkey_required=True), NOW, POLICY)
    assert (state.phase, actions) == (Phase.PASSKEY_REQUIRED, [])


def test_a_browser_that_shows_nothing_is_restarted() -> None:
    started = states.browser_started(FRESH, NOW)
    assert step(started, None, NOW + timedelta(seconds=119), POLICY)[1] == []
    state, actions = step(started, None, NOW + timedelta(seconds=120), POLICY)
    assert actions == [Action.RESTART_BROWSER]
    assert state.reason == Reason.INITIALIZATION_TIMEOUT


WORDS = st.sampled_from(
    [None, "CONNECTED", "OPENING", "CONFLICT", "UNPAIRED", "UNPAIRED_IDLE", "PAIRING", "TOS_BLOCK", "NEW_WORD"]
)
MODES = st.sampled_from([None, "MAIN", "QR", "SYNCING", "OFFLINE", "CONFLICT", "NEW_WORD"])
INFOS = st.sampled_from([None, "NORMAL", "OPENING", "SYNCING", "OFFLINE", "RESUMING"])
SNAPSHOTS = st.one_of(
    st.none(),
    st.builds(
        Snapshot,
        injected=st.booleans(),
        registered=st.sampled_from([None, True, False]),
        authenticated=st.sampled_from([None, True, False]),
        socket_state=WORDS,
        mode=MODES,
        info=INFOS,
        me=st.sampled_from([None, "15551234567@c.us"]),
    ),
)


@given(st.lists(st.tuples(SNAPSHOTS, st.booleans(), st.integers(0, 200)), max_size=30), st.booleans())
def test_the_rules(looks: list[tuple[Snapshot | None, bool, int]], stored: bool) -> None:
    state = STORED if stored else states.browser_started(FRESH, NOW)
    now = NOW
    for snapshot, logout, seconds in looks:
        now += timedelta(seconds=seconds)
        if logout:
            state = states.logout_signal(state, None)
        before, (state, actions) = state, step(state, snapshot, now, POLICY)
        if before.session_valid and not state.session_valid:
            assert before.logout_reason is not None, "a login ends by two signals only"
            assert snapshot is not None
            assert snapshot.registered is False
            assert Action.SET_ASIDE in actions
        if Action.SET_ASIDE in actions:
            assert state.last_disconnect is not None
            assert state.last_disconnect.kind is DisconnectKind.LOGOUT
        if state.phase is Phase.READY and before.phase is not Phase.READY:
            assert snapshot is not None
            assert snapshot.good
            assert state.durable
