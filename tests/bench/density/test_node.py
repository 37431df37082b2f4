"""What is read from cgroups of both versions, and how zswap counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.density import node
from bench.density.node import V1, V2, Layout, Node

MIB = 2**20


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        (
            V1,
            {
                "memory.kmem.usage_in_bytes": f"{10 * MIB}",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                "memory.stat": f"cache {60 * MIB}\nrss {90 * MIB}\nshmem {20 * MIB}\n"
                f"swap {30 * MIB}\n",
            },
        ),
        (
            V2,
            {
                "memory.swap.current": f"{32 * MIB}",
                "memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n",
                "memory.stat": f"anon {90 * MIB}\nfile {60 * MIB}\nshmem {20 * MIB}\n"
                f"swapcached {2 * MIB}\nkernel {15 * MIB}\n",
            },
        ),
    ],
    ids=["cgroup v1", "cgroup v2"],
)
def test_memory_is_read_from_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout, files: dict[str, str]
) -> None:
    monkeypatch.setattr(node, "zswap_pool", lambda: 5 * MIB)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    here = Node(tmp_path, layout, limit=200 * MIB)
    assert (tmp_path / layout.limit).read_text() == str(200 * MIB)
    assert here.oom_kills() == 1
    usage = here.usage()
    assert (usage.anonymous, usage.shared, usage.swapped, usage.compressed) == (90, 20, 30, 5)
    assert (usage.files, usage.kernel, usage.private) == (40, 10, 140)


async def test_version_1_leaves_less_of_the_limit_the_more_zswap_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "PAUSE", 0)
    monkeypatch.setattr(node, "zswap_pool", lambda: 50 * MIB)
    charging = asyncio.create_task(Node(tmp_path, V1, limit=500 * MIB).charge_zswap())
    limit = tmp_path / V1.limit
    while limit.read_text() != str(450 * MIB):
        assert not charging.done()
        await asyncio.sleep(0)
    charging.cancel()
