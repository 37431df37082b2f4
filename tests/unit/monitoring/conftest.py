"""promtool, for what Prometheus would load."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import prometheus


@pytest.fixture(scope="package")
def promtool() -> Path:
    return prometheus.program("promtool")
