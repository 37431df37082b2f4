"""An informer's cache equals what the API server has, whatever happens to the watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest
from wasession_api.kube import informer
from wasession_api.kube.client import (
    PODS,
    Answers,
    KubeClient,
    Rejected,
    ResourceExpired,
    Unavailable,
)
from wasession_api.kube.informer import ClusterRestored, Informer, Transform
from wasession_api.kube.manifests import Manifest


def pod(name: str, version: int, uid: str | None = None, namespace: str = "ns") -> Manifest:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or name,
        "resourceVersion": str(version),
    }
    return {
        "metadata": {**metadata, "managedFields": [1]},
        "spec": {"nodeName": "n", "containers": []},
        "status": {},
    }


def event(kind: str, obj: Manifest) -> Manifest:
    return {"type": kind, "object": obj}


class FakeKube:
    """Lists and streams by script; the last stream stays open."""

    def __init__(
        self,
        lists: list[tuple[int, list[Manifest]] | Exception],
        streams: list[list[Manifest | Exception]],
    ) -> None:
        self.answers = Answers()
        self.lists, self.streams = lists, streams
        self.watched_from: list[str] = []
        self.page_sizes: list[int] = []  # of the lists
        self.version = 0  # of the present state, as far as the script has told it
        self.quiet = asyncio.Event()

    async def pages(
        self, _resource: Any, _namespace: Any, *_: Any, page_size: int
    ) -> AsyncGenerator[Manifest]:
        if page_size == 1:
            yield {"metadata": {"resourceVersion": str(self.version)}, "items": []}
            return
        self.page_sizes.append(page_size)
        result = self.lists.pop(0)
        if isinstance(result, Exception):
            raise result
        version, objects = result
        self.version = version
        for items in ([obj] for obj in objects) if objects else [[]]:
            yield {"metadata": {"resourceVersion": str(version)}, "items": items}

    async def watch(
        self, _resource: Any, _namespace: Any, _selector: Any, version: str
    ) -> AsyncGenerator[Manifest]:
        self.watched_from.append(version)
        for item in self.streams.pop(0) if self.streams else []:
            if isinstance(item, Exception):
                raise item
            self.version = int(item["object"]["metadata"]["resourceVersion"])
            yield item
        if not self.streams:
            self.quiet.set()
            await asyncio.Event().wait()


Changes = list[tuple[str | None, str | None]]


async def run(
    kube: FakeKube,
    then: Callable[[Informer], None] = lambda _: None,
    transform: Transform = informer.without_managed_fields,
) -> tuple[Informer, Changes]:
    """Run an informer to the end of the script; return it and its changes by resource version."""
    changes: Changes = []

    def version(obj: Manifest | None) -> str | None:
        return None if obj is None else obj["metadata"]["resourceVersion"]

    def on_change(before: Manifest | None, after: Manifest | None) -> None:
        changes.append((version(before), version(after)))

    pods = Informer(cast(KubeClient, kube), PODS, [], "", on_change, transform)
    task = asyncio.create_task(pods.run())
    await kube.quiet.wait()
    then(pods)
    task.cancel()
    return pods, changes


def informer_of(kube: FakeKube) -> Informer:
    return Informer(cast(KubeClient, kube), PODS, [], "", lambda *_: None)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer, "RETRY_FIRST", 0.0)


async def test_objects_are_added_modified_and_deleted() -> None:
    stream = [
        event("ADDED", pod("b", 6)),
        event("MODIFIED", pod("a", 7)),
        event("DELETED", pod("b", 8)),
    ]
    pods, changes = await run(FakeKube([(5, [pod("a", 4)])], [list(stream)]))
    assert set(pods.objects) == {("ns", "a")}
    assert changes == [(None, "4"), (None, "6"), ("4", "7"), ("6", None)]
    assert pods.is_synced


async def test_objects_deleted_while_the_watch_was_down_are_reported() -> None:
    """kopf's own watch does not do this."""
    kube = FakeKube(
        [(5, [pod("a", 4), pod("b", 3)]), (20, [pod("b", 3), pod("c", 15)])],
        [[ResourceExpired()], []],
    )
    pods, changes = await run(kube)
    assert set(pods.objects) == {("ns", "b"), ("ns", "c")}
    assert ("4", None) in changes
    assert kube.watched_from == ["5", "20"]


async def test_a_broken_stream_resumes_at_its_last_version() -> None:
    kube = FakeKube(
        [Unavailable("down"), (5, [])],
        [[event("ADDED", pod("a", 6)), Unavailable("cut")], [event("MODIFIED", pod("a", 9))]],
    )
    _, changes = await run(kube)
    assert kube.watched_from == ["5", "6"]
    assert changes == [(None, "6"), ("6", "9")]


async def test_a_stream_resumes_at_the_last_bookmark() -> None:
    kube = FakeKube(
        [(5, [])],
        [[event("BOOKMARK", {"metadata": {"resourceVersion": "40"}}), Unavailable("cut")], []],
    )
    await run(kube)
    assert kube.watched_from == ["5", "40"]


async def test_the_answer_to_a_write_may_be_ahead_of_the_watch() -> None:
    def then(pods: Informer) -> None:
        pods.upsert(pod("a", 12))
        pods.upsert({"kind": "Status", "metadata": {}})

    pods, changes = await run(FakeKube([(5, [])], [[]]), then)
    assert changes == [(None, "12")]
    pods._upsert(("ns", "a"), pod("a", 11))  # an older watch event
    assert pods.objects["ns", "a"]["metadata"]["resourceVersion"] == "12"


async def test_an_answer_behind_the_watch_does_not_bring_a_deleted_object_back() -> None:
    kube = FakeKube([(5, [])], [[event("ADDED", pod("a", 6)), event("DELETED", pod("a", 7))]])
    pods, changes = await run(kube, lambda pods: pods.upsert(pod("a", 6)))
    assert pods.objects == {}
    assert changes == [(None, "6"), ("6", None)]


async def test_the_deletion_of_a_predecessor_does_not_remove_its_successor() -> None:
    kube = FakeKube(
        [(5, [])],
        [[event("ADDED", pod("a", 8, uid="new")), event("DELETED", pod("a", 7, uid="old"))]],
    )
    pods, _ = await run(kube)
    assert pods.objects["ns", "a"]["metadata"]["uid"] == "new"


async def test_the_cache_holds_what_the_transform_returns() -> None:
    def only_metadata(obj: Manifest) -> Manifest:
        return {"metadata": obj["metadata"]}

    kube = FakeKube([(5, [pod("a", 4)])], [[event("ADDED", pod("b", 6))]])
    pods, _ = await run(kube, transform=only_metadata)
    for obj in pods.objects.values():
        assert obj.keys() == {"metadata", "kind"}
        assert obj["kind"] == "Pod"


async def test_without_a_transform_only_managed_fields_are_dropped() -> None:
    pods, _ = await run(FakeKube([(5, [pod("a", 4)])], [[]]))
    [obj] = pods.objects.values()
    assert obj["spec"] == pod("a", 4)["spec"]
    assert "managedFields" not in obj["metadata"]


async def test_a_rejected_namespace_holds_up_no_other() -> None:
    class Kube(FakeKube):
        async def pages(
            self, _resource: Any, namespace: Any, *_: Any, page_size: int
        ) -> AsyncGenerator[Manifest]:
            if namespace == "forbidden" and not allowed.is_set():
                raise Rejected("forbidden")
            yield {"metadata": {"resourceVersion": "5"}, "items": []}

    allowed = asyncio.Event()
    synced: asyncio.Queue[str | None] = asyncio.Queue()
    pods = Informer(
        cast(KubeClient, Kube([], [])), PODS, ["ns", "forbidden"], "", lambda *_: None,
        on_sync=synced.put_nowait,
    )  # fmt: skip
    task = asyncio.create_task(pods.run())
    async with asyncio.timeout(60):
        assert {await synced.get(), await synced.get()} == {"ns", "forbidden"}
        assert pods.has_synced("ns")
        assert (pods.has_synced("forbidden"), pods.rejection("forbidden")) == (False, "forbidden")
        pods._watches["forbidden"].last_event -= 1000
        assert pods.age < 1000, "it is not silent"
        allowed.set()
        assert await synced.get() == "forbidden"
    assert pods.has_synced("forbidden")
    assert pods.is_synced
    task.cancel()


async def test_a_watch_that_keeps_failing_starts_again_from_a_list() -> None:
    """The version may be what the API server cannot cope with."""
    failing: list[list[Manifest | Exception]] = [[Unavailable("500")] for _ in range(3)]
    kube = FakeKube([(5, [pod("a", 4)]), (7, [pod("b", 6)])], [*failing, []])
    pods, _ = await run(kube)
    assert kube.watched_from == ["5", "5", "5", "7"]
    assert ("ns", "b") in pods.objects


async def test_a_failed_watch_notices_that_etcd_was_restored() -> None:
    """The API server would let it watch from a version of a lost future, and say nothing."""

    class Restored(FakeKube):
        async def watch(self, *arguments: Any) -> AsyncGenerator[Manifest]:
            async with contextlib.aclosing(super().watch(*arguments)) as events:
                try:
                    async for item in events:
                        yield item
                finally:
                    self.version = 3

    kube = Restored([(5, [pod("a", 4)])], [[event("ADDED", pod("b", 6)), Unavailable("cut")], []])
    with pytest.raises(ClusterRestored, match="pods are at version 3, and were at 6"):
        await asyncio.wait_for(informer_of(kube).run(), 60)
    assert kube.watched_from == ["5"]


async def test_a_list_notices_that_etcd_was_restored() -> None:
    """What is cached is newer than anything that the list has: it would stay for long."""
    kube = FakeKube([(5, [pod("a", 4)]), (3, [pod("a", 2)])], [[ResourceExpired()], []])
    with pytest.raises(ClusterRestored, match="pods are at version 3, and were at 5"):
        await asyncio.wait_for(informer_of(kube).run(), 60)


async def test_a_watch_that_ends_without_an_event_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says so at the first failure and the second, fourth, eighth and so on."""
    opened = event("BOOKMARK", {"metadata": {"resourceVersion": "5"}})
    again = event("BOOKMARK", {"metadata": {"resourceVersion": "6"}})
    caplog.set_level("INFO")
    lists: list[tuple[int, list[Manifest]] | Exception] = [(5, []) for _ in range(6)]
    streams: list[list[Manifest | Exception]] = [[opened] for _ in range(7)]
    await run(FakeKube(lists, [*streams, [opened, again]]))
    messages = [(record.message, vars(record)["failures"]) for record in caplog.records]
    assert messages == [
        ("watch failed; retrying", 1),
        ("watch failed; retrying", 2),
        ("watch failed; retrying", 4),
        ("watch works again", 7),
    ]


async def test_a_namespace_that_fails_while_others_are_answered_holds_up_none() -> None:
    class Kube(FakeKube):
        failures: asyncio.Queue[None] = asyncio.Queue()

        async def pages(
            self, _resource: Any, namespace: Any, *_: Any, page_size: int
        ) -> AsyncGenerator[Manifest]:
            if namespace == "broken":
                self.answers.last += answered
                self.failures.put_nowait(None)
                raise Unavailable("500")
            yield {"metadata": {"resourceVersion": "5"}, "items": []}

    kube, answered = Kube([], []), 0.0
    synced: asyncio.Queue[str | None] = asyncio.Queue()
    pods = Informer(
        cast(KubeClient, kube), PODS, ["ns", "broken"], "", lambda *_: None,
        on_sync=synced.put_nowait,
    )  # fmt: skip
    task = asyncio.create_task(pods.run())
    async with asyncio.timeout(60):
        assert await synced.get() == "ns"
        for _ in range(5):
            await kube.failures.get()
        assert pods.rejection("broken") is None, "nothing is answered: it is not alone"
        answered = informer.REJECTED_AFTER
        assert await synced.get() == "broken"
    assert pods.rejection("broken") == "500"
    task.cancel()


async def test_a_list_that_expires_between_its_pages_is_repeated_with_larger_ones() -> None:
    """etcd is compacted every five minutes, and a slow API server may need longer for all pages."""
    expired = [ResourceExpired() for _ in range(3)]
    kube = FakeKube([*expired, (5, [pod("a", 5)]), (6, [pod("a", 6)])], [[ResourceExpired()], []])
    pods, changes = await run(kube)
    assert kube.page_sizes == [100, 500, 2500, 2500, 100]
    assert set(pods.objects) == {("ns", "a")}
    assert changes == [(None, "5"), ("5", "6")]
