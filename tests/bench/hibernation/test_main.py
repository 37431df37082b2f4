"""The cluster is stopped, however the benchmark ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bench.hibernation import __main__ as main
from bench.hibernation.load import Load

DRILL = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import drill; drill()"


@contextlib.contextmanager
def nothing() -> Iterator[object]:
    """Pretend to be a testbed."""
    try:
        yield None
    finally:
        print("stopped", flush=True)


async def forever(*_: object) -> None:
    print("measuring", flush=True)
    await asyncio.Event().wait()


def drill() -> None:
    """Run the benchmark with a measurement that never ends."""
    with mock.patch.object(main, "testbed", nothing), mock.patch.object(main, "measure", forever):
        main.main()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_cluster(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRILL, "--sessions", "4", "--directory", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "measuring\n"
            process.send_signal(number)
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()


def test_a_tenth_is_awake_unless_asked_for() -> None:
    options = main.parser().parse_args([])
    assert (options.sessions, options.awake, options.minutes) == (200, None, 20)
    run = main.new_run(Load(200, 20, 20), seed=1)
    assert (run.sessions, run.awake, run.interval) == (200, 20, Load(200, 20, 20).interval)
    with pytest.raises(SystemExit):
        main.parser().parse_args(["--awake", "0"])
