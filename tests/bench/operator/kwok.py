"""kwok: nodes and kubelets that are only objects, built from the Go module beside this file."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.cluster import binaries

MODULE = Path(__file__).with_name("go")
PACKAGE = "sigs.k8s.io/kwok/cmd/kwok"
STAGES = ("node/fast/node-initialize.yaml", "pod/fast/pod-ready.yaml")


def program() -> Path:
    """Return the path of the program; the first build takes a minute or two."""
    return binaries.of_module(MODULE, "kwok", PACKAGE)


def configuration(path: Path) -> Path:
    """Write kwok's own stages to a file: a pod that is bound is Running and Ready at once.

    The stage for the end of pods is left out: it deletes by name, and when it is late, it deletes
    the next pod.
    """
    command = ["go", "list", "-m", "-f", "{{.Dir}}", PACKAGE.removesuffix("/cmd/kwok")]
    module = subprocess.run(
        command, cwd=MODULE, check=True, capture_output=True, text=True
    ).stdout.strip()
    path.write_text(
        "\n---\n".join(
            (Path(module) / "kustomize" / "stage" / stage).read_text() for stage in STAGES
        )
    )
    return path
