"""What a token permits, and what needs which scope."""

from __future__ import annotations

from typing import Any

import pytest
from wasession_api.http.problem import HTTPProblem
from wasession_gateway import events, operations, scopes, socketio_namespace
from wasession_gateway.auth import Identity
from wasession_gateway.events import Closing, Event, State
from wasession_gateway.operations import OPERATIONS
from wasession_gateway.scopes import PERMISSIONS, Scope


@pytest.mark.parametrize(
    ("claims", "permitted"),
    [
        ({}, PERMISSIONS),
        ({"scope": "sessions:read pair"}, {Scope.SESSIONS_READ, Scope.PAIR}),
        ({"scp": "sessions:read pair"}, {Scope.SESSIONS_READ, Scope.PAIR}),
        ({"scp": ["sessions:read", "openid"]}, {Scope.SESSIONS_READ}),
        ({"scope": ["messages:send"]}, {Scope.MESSAGES_SEND}),
        ({"scope": "openid profile"}, set()),
        ({"scope": ""}, set()),
        ({"scp": []}, set()),
        ({"scope": "", "scp": "sessions:read"}, set()),
        ({"scope": "Sessions:Read"}, set()),
        ({"scope": "sessions:read,pair"}, set()),
        ({"scp": ["sessions:read pair"]}, set()),
        ({"scope": "sessions:*"}, set()),
        ({"scope": "admin"}, PERMISSIONS),
        ({"scope": " admin "}, PERMISSIONS),
        ({"scope": "admin openid"}, set()),
        ({"scp": ["openid", "profile", "admin"]}, set()),
        ({"scope": "openid admin pair"}, {Scope.PAIR}),
        ({"scope": "admin sessions:read"}, {Scope.SESSIONS_READ}),
    ],
)
def test_permissions(claims: dict[str, Any], permitted: set[Scope]) -> None:
    assert scopes.permissions(scopes.listed(claims)) == permitted


@pytest.mark.parametrize("value", [None, 7, True, {}, {"admin": 1}, ["pair", 7], [["pair"]]])
@pytest.mark.parametrize("claim", ["scope", "scp"])
def test_a_malformed_claim_permits_nothing(claim: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"the token's {claim} must be"):
        scopes.listed({claim: value})


def test_the_answer_names_the_missing_scope() -> None:
    with pytest.raises(HTTPProblem) as refused:
        Identity("alice", False, 0, frozenset()).require(Scope.PAIR)
    assert refused.value.status == 403
    assert refused.value.detail == "the token lacks the scope pair"
    assert refused.value.headers == {
        "WWW-Authenticate": 'Bearer error="insufficient_scope", scope="pair"'
    }


@pytest.mark.parametrize(
    ("admin", "permitted", "may"),
    [
        (True, PERMISSIONS, True),
        (True, {Scope.PAIR, Scope.MESSAGES_READ}, True),
        (True, {Scope.MESSAGES_READ}, False),
        (True, {Scope.PAIR}, False),
        (True, set(), False),
        (False, PERMISSIONS, False),
    ],
)
def test_who_may_look_at_a_page_may_see_all_that_it_shows(
    admin: bool, permitted: set[Scope], may: bool
) -> None:
    caller = Identity("alice", admin, 0, frozenset(permitted))
    assert caller.may(scopes.VIEW) is may
    if not may:
        with pytest.raises(HTTPProblem) as refused:
            caller.require(scopes.VIEW)
        assert refused.value.detail == "the token lacks the scope admin and messages:read and pair"
        assert refused.value.headers == {
            "WWW-Authenticate": 'Bearer error="insufficient_scope", '
            'scope="admin messages:read pair"'
        }


def test_each_operation_has_a_scope_and_documents_it() -> None:
    document = operations.document()
    for operation in OPERATIONS:
        assert operation.scopes, operation.name
        names = {name for scope in operation.scopes for name in scope.split()}
        assert names <= set(Scope), operation.name
        assert not names.isdisjoint(PERMISSIONS), operation.name
        described = document["paths"][operation.path][operation.method.lower()]
        assert described["security"] == [{"bearer": scope.split()} for scope in operation.scopes]
        assert "403" in described["responses"]


def test_writes_have_other_scopes_than_reads() -> None:
    reading = {Scope.SESSIONS_READ, Scope.MESSAGES_READ}
    for operation in OPERATIONS:
        assert operation.method == "GET" or reading.isdisjoint(operation.scopes), operation.name


def test_each_event_has_a_scope() -> None:
    models = {State, *Event.__subclasses__()}
    assert models == events.SCOPES.keys()
    assert models == {*operations.EVENTS} - {Closing}
    assert set(socketio_namespace.JOIN) == set(events.SCOPES.values())
