"""What a page may say of itself, and what of it is believed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from wasession_pod.state.observation import PageEvent, PageObservation


def test_what_is_no_text_is_not_known() -> None:
    seen = PageObservation.model_validate(
        {"injected": True, "registered": True, "mode": {"a": 1}, "pushName": 7, "me": "x" * 999}
    )
    assert (seen.mode, seen.push_name, len(seen.me or "")) == (None, None, 256)
    assert not seen.healthy


@pytest.mark.parametrize("event", [{}, {"type": None}, {"type": 7}, {"type": "a", "data": []}, []])
def test_what_is_no_event(event: object) -> None:
    with pytest.raises(ValidationError):
        PageEvent.model_validate(event)
