"""Modules do not depend on the order in which they are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each module is imported as the first one of its package.
PROGRAM = """
import importlib, pkgutil, sys
from prometheus_client import REGISTRY
package = sys.argv[1]
names = [found.name for found in pkgutil.walk_packages(__import__(package).__path__, package + ".")]
for name in names:
    if not name.endswith("__main__"):
        for known in [one for one in sys.modules if one.partition(".")[0] == package]:
            del sys.modules[known]
        for metric in list(REGISTRY._collector_to_names):  # it takes each one once
            REGISTRY.unregister(metric)
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.parametrize(
    "package",
    ["wasession_api", "wasession_cli", "wasession_gateway", "wasession_operator", "wasession_pod"],
)
def test_each_module_can_be_the_first(package: str) -> None:
    command = [sys.executable, "-c", PROGRAM, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
