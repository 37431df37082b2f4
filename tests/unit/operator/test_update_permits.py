"""Rollouts of different scopes do not hold up each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    facts,
    of,
    plan,
    pod,
    report,
    session,
    template_of,
)
from wasession_api import names
from wasession_api.kube.manifests import Key, Manifest
from wasession_api.v1alpha1 import Phase, Reason, UpdateStatus
from wasession_operator.plan import Scope, update_scope
from wasession_operator.plan.actions import DeletePod
from wasession_operator.update_index import UpdateIndex
from wasession_operator.update_permits import UpdatePermits

A, B, C = ("ns", "a"), ("ns", "b"), ("ns", "c")
GOLD, OWN = ("class", "gold"), ("owner", "ns", "o")


@pytest.fixture
def enqueued() -> list[Key]:
    return []


@pytest.fixture
def index() -> UpdateIndex:
    return UpdateIndex()


@pytest.fixture
def permits(enqueued: list[Key], index: UpdateIndex) -> UpdatePermits:
    permits = UpdatePermits(1, enqueued.append, index)
    index.changed = permits.scope_changed
    permits.open()
    return permits


def updating(scope: tuple[str, ...], **fields: bool) -> Manifest:
    """Return a session whose status says that it is being updated."""
    own = scope[0] == "owner"
    return {
        "spec": {"owner": scope[-1]} if own else {},
        "status": {"class": {"name": scope[-1]}, "update": {"own": own, **fields}},
    }


class Grants:
    """A board on which the test grants."""

    def __init__(self) -> None:
        self.granted: set[str] = set()
        self.changes = 0

    def is_granted(self, scope: Scope, request: str) -> bool:
        return request in self.granted

    def requests_changed(self) -> None:
        self.changes += 1


@pytest.fixture
def board() -> Grants:
    return Grants()


@pytest.fixture
def shared(enqueued: list[Key], index: UpdateIndex, board: Grants) -> UpdatePermits:
    """Permits of one of several shards."""
    permits = UpdatePermits(1, enqueued.append, index, board)
    index.changed = permits.scope_changed
    permits.open()
    return permits


@pytest.mark.parametrize("scope", [GOLD, OWN])
def test_one_of_several_shards_needs_a_grant(
    shared: UpdatePermits, board: Grants, enqueued: list[Key], scope: Scope
) -> None:
    assert not shared.request(A, scope)
    assert not shared.request(B, scope)
    [request] = shared.requests[scope].values()
    shared.grants_changed()
    assert enqueued == []
    board.granted.add(request)
    shared.grants_changed()
    shared.grants_changed()
    assert enqueued == [A], "once"
    assert shared.request(A, scope)
    assert not shared.is_held(B, scope)
    shared.release(A)
    [following] = shared.requests[scope].items()
    assert following[0] == B
    assert following[1] != request
    assert not shared.is_held(B, scope), "the grant was for another request"
    shared.release(B)
    assert shared.requests == {}
    assert board.changes == 3


def test_a_request_is_never_repeated(shared: UpdatePermits, board: Grants) -> None:
    shared.request(A, GOLD)
    board.granted.update(shared.requests[GOLD].values())
    shared.release(A)
    assert not shared.request(A, GOLD)


def test_a_session_that_is_being_updated_requests_too(shared: UpdatePermits) -> None:
    """The shard that leads the scope knows from its status that it is."""
    shared.adopt(A, GOLD, failed=False)
    assert shared.requests[GOLD].keys() == {A}


def test_a_failed_update_in_another_shard_halts_the_scope(
    shared: UpdatePermits, index: UpdateIndex, enqueued: list[Key]
) -> None:
    for key in (A, B):
        shared.request(key, GOLD)
    index.observe(C, None, updating(GOLD))
    assert enqueued == []
    index.observe(C, updating(GOLD), updating(GOLD, failed=True))
    assert shared.is_halted(GOLD)
    assert not shared.is_halted(OWN)
    assert sorted(enqueued) == [A, B], "their statuses say why they wait"
    index.observe(C, updating(GOLD, failed=True), None)
    assert not shared.is_halted(GOLD)
    assert len(enqueued) == 4


def test_one_session_of_a_scope_at_a_time(permits: UpdatePermits, enqueued: list[Key]) -> None:
    assert permits.request(A, GOLD)
    assert not permits.request(B, GOLD)
    assert permits.request(C, OWN)
    assert permits.is_held(A, GOLD)
    assert not permits.is_held(A, OWN)
    permits.release(A)
    assert permits.is_held(B, GOLD)
    assert enqueued == [B]


def test_a_failure_halts_its_scope_alone(permits: UpdatePermits, enqueued: list[Key]) -> None:
    assert not permits.request(B, GOLD) or permits.adopt(A, GOLD, failed=False) is False
    permits.release(B)
    assert permits.adopt(A, OWN, failed=True)
    assert not permits.adopt(A, OWN, failed=True), "it is new once"
    assert permits.is_halted(OWN)
    assert not permits.is_halted(GOLD)
    assert permits.blockers == 1
    assert permits.request(B, GOLD)
    assert not permits.request(C, OWN)
    permits.adopt(A, OWN, failed=False)
    assert not permits.is_halted(OWN)
    permits.release(A)
    assert permits.is_held(C, OWN)


def test_a_session_is_in_one_scope_at_a_time(permits: UpdatePermits) -> None:
    permits.adopt(A, OWN, failed=True)
    permits.adopt(A, GOLD, failed=False)
    assert not permits.is_halted(OWN)
    assert permits.blockers == 0
    assert permits.request(B, OWN)


def test_nothing_is_granted_before_it_opens(enqueued: list[Key]) -> None:
    permits = UpdatePermits(1, enqueued.append, UpdateIndex())
    assert not permits.request(A, GOLD)
    permits.open()
    assert permits.is_held(A, GOLD)
    assert A in enqueued
    permits.release(A)
    permits.release(A)


def noting(own_spec: str, **spec: object) -> Manifest:
    obj = pod(spec=spec)
    obj["metadata"]["annotations"][names.ANNOTATION_OWN_SPEC] = own_spec
    return obj


@pytest.mark.parametrize(
    ("obj", "image", "expected"),
    [
        (pod, "new:1", ("class", "gold")),  # of an operator that did not note it
        (lambda: noting("h1"), "new:1", ("class", "gold")),
        (lambda: noting("h0"), "new:1", ("owner", "ns", "o")),
        (lambda: noting("h1", owner="o"), None, ("owner", "ns", "o")),  # its Secret has changed
    ],
)
def test_whose_change_it_is(
    obj: Callable[[], Manifest], image: str | None, expected: tuple[str, ...]
) -> None:
    given = replace(session(VALID, className="gold", owner="o", image=image), own_spec="h1")
    assert update_scope(given, obj(), None, given.status, template_of(given)) == expected


def test_the_status_notes_whose_change_it_was() -> None:
    """The next pod does not show it any more, and a new operator has to know."""
    spec: dict[str, Any] = {"updateStrategy": "RollingUpdate", "browser": {"locale": "de-DE"}}
    ready = plan(session(VALID), facts(report=report(session_valid=True)), SETTINGS).status
    seen = facts(report=report(session_valid=True), pod=noting("h0"))
    result = plan(replace(session(ready, **spec), own_spec="h1"), seen, SETTINGS)
    assert of(DeletePod, result) == [DeletePod("pod-uid", Reason.TEMPLATE_CHANGED)]
    assert result.status.update is not None
    assert result.status.update.own
    gone_wrong = report(Phase.LOGGED_OUT, reason="LoggedOutByPhone", session_valid=False)
    of_class = replace(seen, pod=noting("h1"), report=gone_wrong, may_update=False)
    both = plan(replace(session(result.status, **spec), own_spec="h1"), of_class, SETTINGS)
    assert both.status.update is not None
    assert both.status.update.own, "also when the class changes before it has recovered"
    for own, expected in ((True, "owner"), (False, "class")):
        updating = UpdateStatus(at=NOW, was_ready=True, own=own)
        status = ready.model_copy(update={"update": updating})
        assert update_scope(session(status), None, None, status, "")[0] == expected
