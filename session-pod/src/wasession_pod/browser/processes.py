"""The processes that a session is made of: which there are, what they use, and how they are ended when nothing else helps."""

from __future__ import annotations

import re
from collections import Counter

import psutil

DRIVER = "driver"  # Playwright's, a Node process
END_TIMEOUT = (
    5.0  # seconds for a browser to notice that its driver is gone, which lets it write its profile
)


def family() -> list[psutil.Process]:
    """Playwright's driver and the browser below it."""
    found = []
    for child in psutil.Process().children():
        if kind(child) == DRIVER:
            found += [child, *child.children(recursive=True)]
    return found


def kind(process: psutil.Process) -> str:
    """``driver``, ``browser``, ``renderer``, ``gpu``, ``network``, ``utility``, ``zygote`` or ``other``."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return "other"
    if "run-driver" in words:
        return DRIVER
    if match := re.search(r"--type=([a-z]+)", words):
        return "network" if "--utility-sub-type=network." in words else match.group(1)
    return "browser" if "--user-data-dir=" in words else "other"


def memory() -> Counter[str]:
    """Proportional set size by kind of process, in bytes; what several processes share is counted once."""
    used: Counter[str] = Counter({"python": _pss(psutil.Process())})
    for process in family():
        used[kind(process)] += _pss(process)
    return used


def end(processes: list[psutil.Process]) -> None:
    """Ends the driver, which makes the browser write its profile and end; what is still there after a while is killed."""
    for process in processes:
        if kind(process) == DRIVER:
            _kill(process)
    _, left = psutil.wait_procs(processes, timeout=END_TIMEOUT)
    for process in left:
        _kill(process)
    psutil.wait_procs(left, timeout=END_TIMEOUT)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (
        psutil.AccessDenied
    ):  # a process in Chromium's sandbox: nobody may look into it, only its size is known
        known = process.memory_info()
        return int(known.rss - known.shared)
    except psutil.Error:  # it has ended meanwhile
        return 0


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
