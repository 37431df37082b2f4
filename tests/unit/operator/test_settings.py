"""Settings that would do harm are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from wasession_operator.settings import Settings


def test_a_resync_without_a_pause_is_refused() -> None:
    with pytest.raises(ValidationError, match="cleanup_interval"):
        Settings.model_validate({"session_image": "session-pod:1", "cleanup_interval": "0s"})
