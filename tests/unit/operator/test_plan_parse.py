"""WhatsAppSessions as the API server has them: an invalid part never loses the rest."""

from __future__ import annotations

from typing import Any

import pytest
from unit.operator.situations import NOW, VALID
from wasession_api.v1alpha1 import Phase, Status
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.plan import parse_session


def stored(**changes: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": "sales", "uid": "uid-1", "generation": 3}
    return {"metadata": metadata | changes.pop("metadata", {}), **changes}


def test_a_whole_session() -> None:
    metadata = {
        "deletionTimestamp": "2026-01-02T03:04:05Z",
        "annotations": {"wasession.dev/logout": "1"},
        "finalizers": ["wasession.dev/session"],
    }
    obj = stored(metadata=metadata, spec={"suspend": True}, status={"phase": "Ready"})
    session, error = parse_session(obj)
    assert error is None
    assert (session.namespace, session.name, session.uid) == ("ns", "sales", "uid-1")
    assert session.generation == 3
    assert session.spec.suspend
    assert session.status.phase is Phase.READY
    assert session.deleted_at == NOW
    assert session.annotations == {"wasession.dev/logout": "1"}
    assert session.finalizers == ("wasession.dev/session",)


def test_a_new_session() -> None:
    session, error = parse_session(stored())
    assert error is None
    assert (session.spec, session.status) == (EffectiveSpec(), Status())
    assert session.deleted_at is None


def test_an_invalid_spec_counts_as_empty_and_is_explained() -> None:
    session, error = parse_session(stored(spec={"suspend": True, "storage": {"size": "much"}}))
    assert session.spec == EffectiveSpec()
    assert error is not None
    assert error == "storage.size: must be a quantity such as 512Mi or 1Gi"


@pytest.mark.parametrize(("requested", "expected"), [(True, True), (False, False), ("x", False)])
def test_an_invalid_spec_loses_no_logout(requested: object, expected: bool) -> None:
    """A session may become invalid with its class, and is deleted as well as any other."""
    spec = {"logoutOnDelete": requested, "storage": {"size": "much"}}
    session, error = parse_session(stored(spec=spec))
    assert error is not None
    assert session.spec == EffectiveSpec(logout_on_delete=expected)


def test_fields_of_a_newer_crd_are_ignored() -> None:
    spec = {"suspend": True, "future": 1, "browser": {"future": {}, "locale": "de"}}
    session, error = parse_session(stored(spec=spec))
    assert error is None
    assert session.spec.suspend
    assert session.spec.browser.locale == "de"


def test_an_invalid_field_of_the_status_does_not_lose_the_others() -> None:
    session, error = parse_session(stored(status={"sessionValid": True, "restarts": "many"}))
    assert error is None
    assert session.status == Status(session_valid=True)


def test_the_written_status_counts_before_the_informer_shows_it() -> None:
    assert parse_session(stored(status={"phase": "Ready"}), VALID)[0].status == VALID
