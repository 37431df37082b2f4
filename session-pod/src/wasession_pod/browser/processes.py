"""The operating system processes of a session: their kind, memory and forced end."""

from __future__ import annotations

import contextlib
import re
from collections import Counter

import psutil

DRIVER = "driver"  # Playwright's, a Node process
# Seconds for a browser to notice that its driver has exited, upon which it writes its profile.
END_TIMEOUT = 5.0


def family() -> list[psutil.Process]:
    """Return Playwright's driver and the browser processes below it."""
    processes = []
    for child in psutil.Process().children():
        if kind(child) == DRIVER:
            processes.append(child)
            with contextlib.suppress(psutil.NoSuchProcess):  # it has exited meanwhile
                processes += child.children(recursive=True)
    return processes


def kind(process: psutil.Process) -> str:
    """Return driver, browser, renderer, gpu, network, utility, zygote or other."""
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


def end(processes: list[psutil.Process]) -> None:
    """Kill the driver, so that the browser writes its profile and exits; then kill the rest."""
    for process in processes:
        if kind(process) == DRIVER:
            _kill(process)
    _, remaining = psutil.wait_procs(processes, timeout=END_TIMEOUT)
    for process in remaining:
        _kill(process)
    psutil.wait_procs(remaining, timeout=END_TIMEOUT)


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):  # it exits at any moment
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:  # in Chromium's sandbox, only the total sizes are readable
            sizes = process.memory_info()
            return int(sizes.rss - sizes.shared)
    return 0


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
