"""A session short of memory replaces its page before an OOM kill, and reports it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from integration.pod.conftest import Pod
from support.standin import Phone
from wasession_api.v1alpha1 import Phase, Reason
from wasession_pod.browser import processes

Start = Callable[..., Awaitable[Pod]]


async def test_memory_that_runs_out(start: Start, phone: Phone) -> None:
    pod = await start(memory_limit_bytes=str(50 * 2**20))
    await phone.scan(await pod.qr())
    report = await pod.until(
        lambda r: r.last_disconnect is not None and r.phase is Phase.READY, timeout=120
    )
    assert report.session_valid
    assert report.last_disconnect is not None
    assert report.last_disconnect.reason == Reason.MEMORY_LOW
    assert [warning.reason for warning in report.warnings] == [Reason.MEMORY_LOW]
    assert await pod.metric('wasession_pod_page_recycles_total{cause="MemoryLow"}') == 1
    for process in ("browser", "renderer", "python"):
        assert await pod.metric(f'wasession_pod_memory_bytes{{process="{process}"}}') > 2**20
    await pod.ready()
    kinds = Counter(processes.kind(process) for process in pod.family())
    assert kinds["renderer"] == 1, "one page; no spare renderer, none for the address bar"
    assert kinds["browser"] == 1
    assert kinds["driver"] == 0, "Playwright runs on demand"
    assert kinds["network"] == 0, "the network service runs in the browser's process"
    used = await pod.metric("wasession_pod_memory_used_bytes")
    assert used > await pod.metric("wasession_pod_memory_limit_bytes") == 50 * 2**20
