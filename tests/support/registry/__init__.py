"""A real OCI registry (CNCF distribution), built from the Go module beside this file."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from support.cluster import binaries
from support.cluster.waiting import wait_for
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT

MODULE = Path(__file__).with_name("go")
PACKAGE = "github.com/distribution/distribution/v3/cmd/registry"
PATIENCE = 30.0  # seconds
CONFIGURATION = """version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def program() -> Path:
    """Return the path of the program; the first build takes two minutes."""
    return binaries.of_module(MODULE, "registry", PACKAGE)


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Yield the address of a registry without TLS, such as ``127.0.0.1:5000``."""
    port = unused_port()
    configuration = directory / "registry.yaml"
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port))
    command = [*ENDS_WITH_PARENT, str(program()), "serve", str(configuration)]
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for("the registry to answer", lambda: _answers(port), PATIENCE)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
        return True
