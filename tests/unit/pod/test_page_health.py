"""What a page lacks although it is connected: ears, a name, or rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from wasession_api.v1alpha1 import PairingMethod, Phase, Reason, Takeover
from wasession_pod.browser.page import WhatsAppPage
from wasession_pod.settings import Settings
from wasession_pod.state import transitions
from wasession_pod.state.model import Action, Policy, State, initial
from wasession_pod.state.observation import PageEvent, PageObservation
from wasession_pod.state.recovery import Backoff, Step
from wasession_pod.state.report import MAXIMUM_RELOADS, RELOADS_WINDOW, UNHEARD_AFTER, warnings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ME = "15551234567@c.us"
POLICY = Policy(
    initialization_timeout=2 * MINUTE,
    max_rounds=5,
    method=PairingMethod.QR_CODE,
    takeover=Takeover.NEVER,
    backoff=Backoff(2 * SECOND, 5 * MINUTE, 1.0),
)
GOOD = PageObservation(
    injected=True,
    registered=True,
    authenticated=True,
    socket_state="CONNECTED",
    mode="MAIN",
    info="NORMAL",
    me=ME,
)
DEAF = GOOD.model_copy(update={"unheard": ("MsgStore",)})
QR = PageObservation(injected=True, registered=False, socket_state="UNPAIRED", mode="QR")
NAMELESS = GOOD.model_copy(update={"me": None})


def stored(account: str | None = ME) -> State:
    """A session that opens its page with the login of its volume."""
    state = initial(has_login=True, restoring=True, now=NOW, account=account)
    return transitions.page_opening(state, NOW)


def decide(state: State, observed: PageObservation, at: timedelta) -> State:
    return transitions.decide(state, observed, NOW + at, POLICY)[0]


def reasons(state: State, at: timedelta) -> list[str]:
    return [warning.reason for warning in warnings(state, NOW + at)]


def test_a_page_that_does_not_hear_is_ready_with_a_warning() -> None:
    state = decide(decide(stored(), DEAF, SECOND), DEAF, 2 * SECOND)
    assert state.phase is Phase.READY
    assert reasons(state, UNHEARD_AFTER) == [], "wa-js takes a while"
    assert reasons(state, UNHEARD_AFTER + SECOND) == [Reason.MESSAGES_NOT_HEARD]
    [warning] = warnings(state, NOW + MINUTE)
    assert "MsgStore" in warning.message
    state = decide(state, GOOD, MINUTE)
    assert reasons(state, 2 * MINUTE) == []


def test_what_a_page_lacks_while_it_is_not_connected_says_nothing() -> None:
    opening = DEAF.model_copy(update={"info": "OPENING", "socket_state": "OPENING"})
    state = decide(stored(), opening, SECOND)
    assert reasons(state, MINUTE) == []


@pytest.mark.parametrize(
    ("observed", "recorded", "account"),
    [(GOOD, None, ME), (GOOD, "1@c.us", ME), (NAMELESS, ME, ME)],
)
def test_the_account_is_the_pages_own_word_or_the_volumes(
    observed: PageObservation, recorded: str | None, account: str
) -> None:
    state = decide(decide(stored(recorded), observed, SECOND), observed, 2 * SECOND)
    assert state.phase is Phase.READY
    assert state.account is not None
    assert state.account.id == account


def test_a_wa_js_that_does_not_run_is_said_at_once_and_the_login_stays() -> None:
    broken = PageObservation(wa_js_error="fails: ReferenceError: x is not\n defined")
    state, actions = transitions.decide(stored(), broken, NOW + SECOND, POLICY)
    assert (state.phase, state.reason) == (Phase.FAILED, Reason.PAGE_INCOMPATIBLE)
    assert "it fails: ReferenceError: x is not defined. Use another one." in state.message
    assert state.session_valid
    assert actions == [Step.RELOAD]
    state = decide(decide(state, GOOD, MINUTE), GOOD, MINUTE + SECOND)
    assert state.phase is Phase.READY


def test_a_pinned_document_that_whatsapp_wants_to_be_updated_is_a_warning() -> None:
    outdated = GOOD.model_copy(update={"needs_update": True})
    state = decide(decide(stored(), outdated, SECOND), outdated, 2 * SECOND)
    assert state.phase is Phase.READY
    [warning] = warnings(state, NOW + MINUTE, pinned=True)
    assert warning.reason == Reason.DOCUMENT_OUTDATED
    assert warnings(state, NOW + MINUTE) == [], "the page reloads itself, and is another one then"
    assert warnings(decide(state, GOOD, MINUTE), NOW + MINUTE, pinned=True) == []


@pytest.mark.parametrize("pinned", [False, True])
def test_what_to_do_about_a_refused_version(pinned: bool) -> None:
    refused = GOOD.model_copy(update={"socket_state": "DEPRECATED_VERSION"})
    policy = replace(POLICY, pinned=pinned)
    state, _ = transitions.decide(stored(), refused, NOW + SECOND, policy)
    assert state.reason == Reason.VERSION_REFUSED
    assert ("whatsappDocument" in state.message) is pinned
    assert state.session_valid


def test_a_page_without_a_name_is_incompatible_after_its_time() -> None:
    state = decide(stored(None), NAMELESS, SECOND)
    assert state.phase is Phase.RESTORING
    state, actions = transitions.decide(state, NAMELESS, NOW + 2 * MINUTE, POLICY)
    assert (state.phase, state.reason) == (Phase.FAILED, Reason.PAGE_INCOMPATIBLE)
    assert actions in ([Step.RELOAD], [])
    assert state.session_valid, "the login is as good as before"


def test_another_logins_name_is_not_this_ones() -> None:
    """A phone was linked since: whose it is, the old record does not say."""
    state = transitions.code_issued(stored(), NOW + MINUTE, POLICY)
    state = decide(decide(state, NAMELESS, SECOND), NAMELESS, 2 * SECOND)
    assert state.account is None
    assert state.phase is not Phase.READY


def test_a_page_that_reloads_itself_often_is_a_warning() -> None:
    state = stored()
    for number in range(MAXIMUM_RELOADS):
        assert reasons(state, number * MINUTE) == []
        state = transitions.page_reloaded(state, NOW + number * MINUTE)
    last = (MAXIMUM_RELOADS - 1) * MINUTE
    assert reasons(state, last) == [Reason.PAGE_RELOADING]
    assert reasons(state, RELOADS_WINDOW) == [], "the first one is too long ago"
    for number in range(100):
        state = transitions.page_reloaded(state, NOW + last + number * SECOND)
    assert len(state.page_reloads) == MAXIMUM_RELOADS


@pytest.mark.parametrize(
    ("marker", "action"),
    [
        ("post_logout=1", Action.QUARANTINE_PROFILE),
        ("post_logout=1&logout_reason=3", Action.QUARANTINE_PROFILE),
        ("post_logout=1&logout_reason=0", Action.FALL_BACK),
        ("post_logout=1&logout_reason=4", Action.FALL_BACK),
    ],
)
def test_only_known_logouts_end_a_login(marker: str, action: Action) -> None:
    events: list[PageEvent] = []
    page = WhatsAppPage(Settings(client_id="sales", token="t"), events.append)
    page._on_navigated(f"https://web.whatsapp.com/?{marker}")
    [event] = events
    state = transitions.logout_signal(stored(), event.reason)
    state, actions = transitions.decide(state, QR, NOW, POLICY)
    assert actions == [action]
    assert state.session_valid is (action is Action.FALL_BACK)
