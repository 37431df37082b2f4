"""Starts operators quickly: it imports everything once, and forks for each start.

``python zygote.py`` reads lines of JSON: ``{"environment": {...}, "log": "path", "descriptors":
128}``. For each of them it forks an operator, which runs ``wasession_operator.__main__.main``, and
prints its PID. The operators end with this process, and this process ends with its input.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

import kopf  # noqa: F401
from kubernetes.aio.config import kube_config
from wasession_operator import __main__ as operator


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for an operator has its pidfd
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_operator(order["environment"], order["log"], order["descriptors"])
        print(pid, flush=True)


def _become_operator(environment: dict[str, str], log: str, descriptors: int | None) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if descriptors is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    os.environ.update(environment)
    # The library has read this from the environment when it was imported.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]
    code = 1
    try:
        operator.main()
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


if __name__ == "__main__":
    main()
