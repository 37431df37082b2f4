"""Starting and ending Chromium, with programs in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from wasession_pod.browser import chromium
from wasession_pod.browser.cdp import Disconnected
from wasession_pod.browser.chromium import Chromium, LastLine
from wasession_pod.browser.errors import BrowserError

# Answers one call; ``{}`` is what follows.
POLITE = """
import json, os, subprocess, sys, time
received = b""
while b"\\0" not in received:
    received += os.read(3, 65536)
call = json.loads(received.partition(b"\\0")[0])
os.write(4, json.dumps({"id": call["id"], "result": {"called": call["method"]}}).encode() + b"\\0")
"""
IMPOLITE = "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
FOREVER = "time.sleep(600)\n"
LATE_WRITER = (
    "subprocess.Popen(['sh', '-c', 'sleep 0.3; echo written > {}; sleep 0.1; echo all >> {}'])\n"
)


async def start(directory: Path, source: str) -> Chromium:
    """Start a program in Python."""
    (directory / "program.py").write_text(source)
    return await chromium.start(
        Path(sys.executable), ["-I", str(directory / "program.py")], dict(os.environ)
    )


def running(started: Chromium) -> list[psutil.Process]:
    """Return what runs in the process group of a program."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # others come and go
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and os.getpgid(process.pid) == started._pid:
                found.append(process)
    return found


async def test_a_polite_program_answers_and_exits(tmp_path: Path) -> None:
    started = await start(tmp_path, POLITE)
    assert await started.failure() is None
    assert await started.close(30)
    assert started.exited.result() == 0
    assert await started.failure() == "it exited with status 0"
    with pytest.raises(Disconnected):
        await started.connection.call("Page.enable")
    assert await started.close(0), "it has exited already"


async def test_a_program_that_does_not_exit_is_killed_with_its_children(tmp_path: Path) -> None:
    started = await start(tmp_path, IMPOLITE + FOREVER)
    async with asyncio.timeout(30):
        while True:
            if len(running(started)) == 2:
                break
            await asyncio.sleep(0.02)  # between two looks
    assert not await started.close(0.1)
    assert started.exited.result() == -signal.SIGKILL
    assert running(started) == []


@pytest.mark.parametrize("end", ["sys.exit(1)", "os.kill(os.getpid(), 9)"])
async def test_a_program_that_fails_has_not_closed_by_itself(tmp_path: Path, end: str) -> None:
    started = await start(tmp_path, f"{POLITE}{end}\n")
    assert not await started.close(30)
    assert not await started.close(0), "nor when it is closed after it has crashed"


async def test_what_a_process_below_it_writes_is_waited_for(tmp_path: Path) -> None:
    """As the service does that stores localStorage."""
    written = tmp_path / "written"
    started = await start(tmp_path, POLITE + LATE_WRITER.format(written, written))
    assert await started.close(30)
    assert written.read_text() == "written\nall\n"


async def test_a_process_below_it_that_stays_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chromium, "REST_TIMEOUT", 0.1)
    started = await start(tmp_path, IMPOLITE)
    assert await asyncio.wait_for(started.exited, 30) == 0
    assert not await started.close(30)
    _, alive = psutil.wait_procs(running(started), timeout=10)  # its pipes close before it is gone
    assert alive == []


async def test_the_last_line_says_why_a_program_has_exited(tmp_path: Path) -> None:
    source = "import sys\nprint('first\\nlast words\\n', file=sys.stderr)\nsys.exit(21)"
    started = await start(tmp_path, source)
    with pytest.raises(Disconnected):
        await started.connection.call("Browser.getVersion")
    await started.close(30)
    assert await started.failure() == "it exited with status 21: last words"


async def test_it_runs_in_a_session_of_its_own_and_inherits_no_file(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("wb") as file:
        started = await start(
            tmp_path,
            "import os, sys\n"
            "files = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
            "         if os.path.exists(f'/proc/self/fd/{n}')}\n"
            "kinds = [files[n].partition(':')[0] for n in '01234']\n"
            "secret = any(name.endswith('/secret') for name in files.values())\n"
            "print(*kinds, secret, os.getsid(0) == os.getpid(), file=sys.stderr)",
        )
        assert file.fileno() > 4
        await started.exited
        await started.close(30)
    expected = "/dev/null /dev/null socket socket socket False True"
    assert await started.failure() == f"it exited with status 0: {expected}"


@pytest.mark.parametrize("content", [None, "no program"])
async def test_a_program_that_cannot_be_started(tmp_path: Path, content: str | None) -> None:
    program = tmp_path / "chromium"
    if content is not None:
        program.write_text(content)
    with pytest.raises(BrowserError, match=f"could not start {program}: "):
        await chromium.start(program, [], {})


async def test_little_of_what_it_writes_is_kept() -> None:
    lines = LastLine()
    for _ in range(100):
        lines.data_received(b"x" * 65536)
    assert len(lines._tail) == chromium.ERROR_TAIL
    lines.data_received("\nthe end \u2026\n\n".encode() + b"\xff\n  \n")
    assert lines.line == "\ufffd"
    lines.data_received(b"y" * 1000 + b"\n")
    assert lines.line == "y" * 200
