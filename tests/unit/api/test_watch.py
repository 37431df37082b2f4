"""A kind of object is known as the API server has it, whatever happens to the watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest
from wasession_api.kube import informer as watch
from wasession_api.kube.client import PODS, KubeClient, ResourceExpired, Unavailable
from wasession_api.kube.informer import Informer, Transform

Manifest = dict[str, Any]


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


def event(kind: str, found: Manifest) -> Manifest:
    return {"type": kind, "object": found}


class FakeKube:
    """Lists and streams that are written down; the last stream stays open."""

    def __init__(
        self,
        lists: list[tuple[int, list[Manifest]] | Exception],
        streams: list[list[Manifest | Exception]],
    ) -> None:
        self.lists, self.streams = lists, streams
        self.watched_from: list[str] = []
        self.quiet = asyncio.Event()

    async def pages(self, *_: Any) -> AsyncGenerator[Manifest]:
        found = self.lists.pop(0)
        if isinstance(found, Exception):
            raise found
        for items in ([item] for item in found[1]) if found[1] else [[]]:
            yield {"metadata": {"resourceVersion": str(found[0])}, "items": items}

    async def watch(
        self, _resource: Any, _namespace: Any, _selector: Any, version: str
    ) -> AsyncGenerator[Manifest]:
        self.watched_from.append(version)
        for item in self.streams.pop(0) if self.streams else []:
            if isinstance(item, Exception):
                raise item
            yield item
        if not self.streams:
            self.quiet.set()
            await asyncio.Event().wait()


Seen = list[tuple[str | None, str | None]]


async def follow(
    kube: FakeKube,
    then: Callable[[Informer], None] = lambda _: None,
    kept: Transform = watch.without_managed_fields,
) -> tuple[Informer, Seen]:
    """Runs a watch until everything that is written down has happened; what it has told of, by version."""
    told: Seen = []

    def version(found: Manifest | None) -> str | None:
        return None if found is None else found["metadata"]["resourceVersion"]

    def changed(before: Manifest | None, after: Manifest | None) -> None:
        told.append((version(before), version(after)))

    watched = Informer(cast(KubeClient, kube), PODS, [], "", changed, kept)
    task = asyncio.create_task(watched.run())
    await kube.quiet.wait()
    then(watched)
    task.cancel()
    return watched, told


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RETRY_FIRST", 0.0)


async def test_objects_come_change_and_go() -> None:
    stream = [
        event("ADDED", pod("b", 6)),
        event("MODIFIED", pod("a", 7)),
        event("DELETED", pod("b", 8)),
    ]
    watched, told = await follow(FakeKube([(5, [pod("a", 4)])], [list(stream)]))
    assert set(watched.objects) == {("ns", "a")}
    assert told == [(None, "4"), (None, "6"), ("4", "7"), ("6", None)]
    assert watched.is_synced


async def test_what_went_away_while_nobody_watched_is_told() -> None:
    """What kopf's own watch does not do."""
    kube = FakeKube(
        [(5, [pod("a", 4), pod("b", 3)]), (20, [pod("b", 3), pod("c", 15)])],
        [[ResourceExpired()], []],
    )
    watched, told = await follow(kube)
    assert set(watched.objects) == {("ns", "b"), ("ns", "c")}
    assert ("4", None) in told
    assert kube.watched_from == ["5", "20"]


async def test_a_stream_that_is_cut_off_goes_on_where_it_was() -> None:
    kube = FakeKube(
        [Unavailable("down"), (5, [])],
        [[event("ADDED", pod("a", 6)), Unavailable("cut")], [event("MODIFIED", pod("a", 9))]],
    )
    _, told = await follow(kube)
    assert kube.watched_from == ["5", "6"]
    assert told == [(None, "6"), ("6", "9")]


async def test_bookmarks_are_where_to_go_on_from() -> None:
    kube = FakeKube(
        [(5, [])],
        [[event("BOOKMARK", {"metadata": {"resourceVersion": "40"}}), Unavailable("cut")], []],
    )
    await follow(kube)
    assert kube.watched_from == ["5", "40"]


async def test_the_answer_to_a_call_is_ahead_of_the_watch() -> None:
    def then(watched: Informer) -> None:
        watched.remember(pod("a", 12))
        watched.remember({"kind": "Status", "metadata": {}})

    kube = FakeKube([(5, [])], [[]])
    watched, told = await follow(kube, then)
    assert told == [(None, "12")]
    watched._keep(("ns", "a"), pod("a", 11))  # what the watch tells of the time before
    assert watched.objects["ns", "a"]["metadata"]["resourceVersion"] == "12"


async def test_an_answer_that_is_behind_the_watch_brings_nothing_back() -> None:
    """It was created, and somebody has deleted it already."""
    kube = FakeKube([(5, [])], [[event("ADDED", pod("a", 6)), event("DELETED", pod("a", 7))]])
    watched, told = await follow(kube, lambda watched: watched.remember(pod("a", 6)))
    assert watched.objects == {}
    assert told == [(None, "6"), ("6", None)]


async def test_another_object_of_the_name_is_not_the_one_that_goes() -> None:
    kube = FakeKube(
        [(5, [])],
        [[event("ADDED", pod("a", 8, uid="new")), event("DELETED", pod("a", 7, uid="old"))]],
    )
    watched, _ = await follow(kube)
    assert watched.objects["ns", "a"]["metadata"]["uid"] == "new"


async def test_only_what_is_asked_for_is_kept() -> None:
    def names_only(found: Manifest) -> Manifest:
        return {"metadata": found["metadata"]}

    watched, _ = await follow(
        FakeKube([(5, [pod("a", 4)])], [[event("ADDED", pod("b", 6))]]), kept=names_only
    )
    for found in watched.objects.values():
        assert found.keys() == {"metadata", "kind"}
        assert found["kind"] == "Pod"
    watched, _ = await follow(FakeKube([(5, [pod("a", 4)])], [[]]))
    [found] = watched.objects.values()
    assert found["spec"] == pod("a", 4)["spec"]
    assert "managedFields" not in found["metadata"]
