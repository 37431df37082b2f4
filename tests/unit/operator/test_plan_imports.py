"""The plan is pure: it imports nothing that does I/O."""

from __future__ import annotations

import subprocess
import sys

IO = {"aiohttp", "kopf", "kubernetes", "prometheus_client"}
PROGRAM = "import sys, wasession_operator.plan; print(*sys.modules)"


def test_the_plan_imports_no_io() -> None:
    program = [sys.executable, "-c", PROGRAM]
    modules = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert {module.partition(".")[0] for module in modules} & IO == set()
    ours = {name.split(".")[1] for name in modules if name.startswith("wasession_operator.")}
    assert ours == {"plan", "effective_spec", "objects", "settings"}
