"""The operating system processes of a session: their kind and memory."""

from __future__ import annotations

import contextlib
import re
from collections import Counter

import psutil

DRIVER = "driver"  # Playwright's, a Node process


def family() -> list[psutil.Process]:
    """Return the processes below this one: the browser's, and Playwright's driver if it runs."""
    return psutil.Process().children(recursive=True)


def kind(process: psutil.Process) -> str:
    """Return driver, browser, Chromium's name of the type (such as renderer or gpu), or other."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "other"
    if "run-driver" in command:
        return DRIVER
    if match := re.search(r"--type=([a-z]+)", command):
        return "network" if "--utility-sub-type=network." in command else match.group(1)
    return "browser" if "--user-data-dir=" in command else "other"


def memory() -> Counter[str]:
    """Return the proportional set size in bytes by kind of process: shared memory counts once."""
    used: Counter[str] = Counter({"python": _pss(psutil.Process())})
    for process in family():
        used[kind(process)] += _pss(process)
    return used


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):  # it exits at any moment
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:  # in Chromium's sandbox, only the total sizes are readable
            sizes = process.memory_info()
            return int(sizes.rss - sizes.shared)
    return 0
