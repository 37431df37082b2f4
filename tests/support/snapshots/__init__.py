"""The CRDs of kubernetes-csi/external-snapshotter, with their CEL rules, as its Go module has them.

Its snapshot-controller takes longer to build than all tests of VolumeSnapshots take; the fakes of
the operator's tests (``support/fakes/snapshots.py``) and ``driver.py`` beside this file act in its
place, and in that of a CSI driver.
"""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

MODULE = Path(__file__).with_name("go")
FILES = "config/crd/snapshot.storage.k8s.io_*.yaml"


@functools.cache
def directory() -> Path:
    """Return the folder of the module, which Go has downloaded and verified."""
    command = ["go", "mod", "download", "-json"]
    done = subprocess.run(command, cwd=MODULE, check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout)["Dir"])


def crds() -> list[dict[str, Any]]:
    """Return the definitions of VolumeSnapshots, their contents and classes."""
    return [yaml.safe_load(path.read_text()) for path in sorted(directory().glob(FILES))]
