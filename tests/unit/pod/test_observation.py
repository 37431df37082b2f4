"""What a page may report, and what of it is accepted."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from wasession_pod.state.observation import PageEvent, PageObservation


def test_a_field_that_is_not_text_is_unknown() -> None:
    observed = PageObservation.model_validate(
        {"injected": True, "registered": True, "mode": {"a": 1}, "pushName": 7, "me": "x" * 999}
    )
    assert (observed.mode, observed.push_name, len(observed.me or "")) == (None, None, 256)
    assert not observed.healthy


def test_half_a_character_is_replaced() -> None:
    """JavaScript's texts may be cut within a character, which UTF-8 cannot express."""
    observed = PageObservation.model_validate(
        {"pushName": "Zo\u00eb \U0001f600 \ud83d", "unheard": ["\ude00 store"]}
    )
    assert (observed.push_name, observed.unheard) == (
        "Zo\u00eb \U0001f600 \ufffd",
        ("\ufffd store",),
    )
    event = PageEvent.model_validate({"type": "conn.logout_reason", "reason": "\ud83d"})
    assert event.reason == "\ufffd"


@pytest.mark.parametrize("event", [{}, {"type": None}, {"type": 7}, {"type": "a", "data": []}, []])
def test_malformed_events(event: object) -> None:
    with pytest.raises(ValidationError):
        PageEvent.model_validate(event)
