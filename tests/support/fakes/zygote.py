"""Starts operators quickly: it imports everything once, and forks for each start.

``python zygote.py`` reads lines of JSON: ``{"environment": {...}, "log": "path", "clock": "path",
"descriptors": 128}``. For each of them it forks an operator, which runs
``wasession_operator.__main__.main``, and prints its PID. The operators end with this process, and
this process ends with its input.

The clocks of an operator run ahead of the machine's by the two numbers in its clock file, which may
change at any time: the seconds of the monotonic clock and those of the wall clock.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import mmap
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

_ahead = memoryview(bytearray(16)).cast("d")  # of a fork: its clock file
_monotonic, _time = time.monotonic, time.time
# Before the imports below: some modules have names of their own for these functions.
time.monotonic = lambda: _monotonic() + _ahead[0]
time.time = lambda: _time() + _ahead[1]

import kopf  # noqa: E402, F401
from kubernetes.aio.config import kube_config  # noqa: E402
from wasession_operator import __main__ as operator  # noqa: E402

CLOCK_MOVED = signal.SIGUSR2  # sent after a change of the clock file


class _MovedDatetime(type):
    """The type of a stand-in for ``datetime.datetime`` that differs from it only in ``now``."""

    def __getattr__(cls, name: str) -> Any:
        return getattr(datetime.datetime, name)

    def __call__(cls, *arguments: Any, **options: Any) -> datetime.datetime:
        return datetime.datetime(*arguments, **options)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime.datetime)

    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(time.time(), tz)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for an operator has its pidfd
    signal.signal(CLOCK_MOVED, signal.SIG_IGN)  # until an operator has its clock
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_operator(**order)
        print(pid, flush=True)


def _become_operator(
    environment: dict[str, str], log: str, clock: str, descriptors: int | None
) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _follow(clock)
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


def _follow(clock: str) -> None:
    """Let the clocks of this process run ahead as the file says."""
    global _ahead
    with Path(clock).open("rb") as file:
        _ahead = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).cast("d")
    for name, module in list(sys.modules.items()):
        # Types of fields have been read already; what they say is still true.
        if name.startswith("wasession") and vars(module).get("datetime") is datetime.datetime:
            module.__dict__["datetime"] = _MovedDatetime("datetime", (), {})
    # The event loop has itself woken by any signal that has a handler, and looks at its timers.
    signal.signal(CLOCK_MOVED, lambda *_: None)


if __name__ == "__main__":
    main()
