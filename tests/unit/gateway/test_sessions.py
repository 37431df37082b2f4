"""Names, manifests, and sessions read from the API server's objects."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasession_api.v1alpha1 import Phase, Spec
from wasession_gateway.session import read_session
from wasession_gateway.session_cache import manifest, resource_name

CLIENT_IDS = st.from_regex(re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII), fullmatch=True)
OWNERS = st.text(min_size=1, max_size=253)


@given(OWNERS, CLIENT_IDS)
def test_a_resource_name_is_always_valid(owner: str, client_id: str) -> None:
    name = resource_name(owner, client_id)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert name == resource_name(owner, client_id)


@given(st.tuples(OWNERS, CLIENT_IDS), st.tuples(OWNERS, CLIENT_IDS))
def test_two_sessions_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (resource_name(*one) == resource_name(*other)) == (one == other)


@pytest.mark.parametrize(
    ("owner", "client_id"),
    [("a", "b-c"), ("a-b", "c"), ("A", "x"), ("a", "X"), ("a", "x_y"), ("a", "x-y")],
)
def test_names_that_look_alike(owner: str, client_id: str) -> None:
    others = [("a", "x"), ("a-", "b-c"), ("ab", "c"), ("a", "x--y")]
    assert resource_name(owner, client_id) not in {resource_name(*other) for other in others}


def test_the_users_choice_is_laid_over_the_platforms() -> None:
    template = Spec.model_validate({"storage": {"size": "5Gi"}, "pairing": {"maxRounds": 2}})
    body = manifest("ns", "alice", "sales", template, {"method": "QRCode"})
    assert body["metadata"] == {"name": resource_name("alice", "sales"), "namespace": "ns"}
    assert body["spec"] == {
        "owner": "alice",
        "clientId": "sales",
        "storage": {"size": "5Gi"},
        "pairing": {"maxRounds": 2, "method": "QRCode"},
    }


def test_a_session_of_kubectl_or_of_a_newer_operator_is_read() -> None:
    metadata = {
        "name": "by-hand",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-10-01T10:00:00Z",
    }
    bare = read_session({"metadata": metadata})
    assert (bare.client_id, bare.owner, bare.phase) == ("by-hand", None, Phase.PENDING)
    newer = read_session(
        {
            "metadata": metadata,
            "spec": {"owner": "a", "clientId": "x"},
            "status": {"phase": "Levitating"},
        }
    )
    assert (newer.client_id, newer.phase) == ("x", Phase.PENDING)
    deleting = read_session(
        {
            "metadata": {**metadata, "deletionTimestamp": "2026-10-01T11:00:00Z"},
            "status": {"phase": "Ready"},
        }
    )
    assert (deleting.phase, deleting.ready) == (Phase.TERMINATING, False)
