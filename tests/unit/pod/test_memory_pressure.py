"""Memory: what is read from the container's cgroup, and what is decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from unit.pod.test_state import READY, RECONNECTING
from wasession_api.v1alpha1 import DisconnectKind, Phase, Reason
from wasession_pod.cgroup import oom_kills, read_memory
from wasession_pod.state import transitions
from wasession_pod.state.memory_pressure import Memory, Relief, limit_too_low, needed_relief
from wasession_pod.state.model import Action
from wasession_pod.state.recovery import Step
from wasession_pod.state.report import warnings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MIB = 2**20


def write(directory: Path, **files: str) -> None:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)


def test_cgroup_version_2(tmp_path: Path) -> None:
    stat = f"anon 1\nfile 2\ninactive_file {100 * MIB}\nactive_file 3\n"
    write(
        tmp_path, memory__max=f"{1024 * MIB}\n", memory__current=f"{500 * MIB}\n", memory__stat=stat
    )
    write(tmp_path, memory__events="low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n")
    assert read_memory(tmp_path) == Memory(400 * MIB, 1024 * MIB)
    assert oom_kills(tmp_path) == 2


def test_cgroup_version_1(tmp_path: Path) -> None:
    stat = f"inactive_file 7\ntotal_inactive_file {100 * MIB}\n"
    usage = {
        "memory__limit_in_bytes": f"{1024 * MIB}\n",
        "memory__usage_in_bytes": f"{500 * MIB}\n",
        "memory__stat": stat,
    }
    write(
        tmp_path / "memory",
        **usage,
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    )
    assert read_memory(tmp_path) == Memory(400 * MIB, 1024 * MIB)
    assert oom_kills(tmp_path) == 4


@pytest.mark.parametrize(
    ("directory", "name", "content"),
    [
        (".", "memory__max", "max\n"),
        ("memory", "memory__limit_in_bytes", f"{2**63 - 4096}\n"),
        (".", "memory__max", "\n\n"),
    ],
)
def test_no_limit(tmp_path: Path, directory: str, name: str, content: str) -> None:
    write(
        tmp_path / directory,
        **{name: content, "memory__current": "1\n", "memory__usage_in_bytes": "1\n"},
    )
    assert read_memory(tmp_path) is None
    assert oom_kills(tmp_path) == 0


@pytest.mark.parametrize(
    ("percent", "recycled", "restarted", "expected", "warned"),
    [
        (79, None, None, None, False),
        (80, None, None, Relief.RECYCLE_PAGE, False),
        (95, None, None, Relief.RECYCLE_PAGE, True),
        (85, 0.5, None, None, False),
        (85, 1, None, Relief.RESTART_BROWSER, True),
        (85, 9, None, Relief.RESTART_BROWSER, True),
        (85, 9, 9, None, True),
        (79, 9, 9, None, False),
        (85, 10, 9, Relief.RECYCLE_PAGE, False),
        (85, 5, 60, Relief.RESTART_BROWSER, True),
        (95, 5, 59, None, True),
    ],
)
def test_relief(
    percent: int,
    recycled: float | None,
    restarted: float | None,
    expected: Relief | None,
    warned: bool,
) -> None:
    """``recycled`` and ``restarted`` are in minutes before now."""
    memory = Memory(percent * MIB, 100 * MIB)
    recycled_at, restarted_at = (
        None if ago is None else NOW - ago * MINUTE for ago in (recycled, restarted)
    )
    assert needed_relief(memory, recycled_at, restarted_at, NOW) is expected
    assert limit_too_low(memory, recycled_at, NOW) == warned


def test_memory_is_released_only_while_ready_and_idle() -> None:
    full = transitions.memory_measured(READY, Memory(90 * MIB, 100 * MIB))
    assert transitions.relieve_memory(full, NOW, busy=True) == (full, []), "a message is under way"
    waiting = transitions.memory_measured(RECONNECTING, full.memory)
    assert transitions.relieve_memory(waiting, NOW, busy=False) == (waiting, [])
    state, actions = transitions.relieve_memory(full, NOW, busy=False)
    assert (state.phase, state.reason, actions) == (
        Phase.RECONNECTING,
        Reason.MEMORY_LOW,
        [Action.RECYCLE_PAGE],
    )
    assert state.last_disconnect is not None
    assert state.last_disconnect.kind is DisconnectKind.CONNECTION
    again = replace(state, phase=Phase.READY)
    assert transitions.relieve_memory(again, NOW, busy=False)[1] == []
    state, actions = transitions.relieve_memory(again, NOW + MINUTE, busy=False)
    assert actions == [Step.RESTART]
    assert [warning.reason for warning in warnings(state, NOW + MINUTE)] == [Reason.MEMORY_LOW]
    assert warnings(transitions.memory_measured(state, None), NOW) == []
