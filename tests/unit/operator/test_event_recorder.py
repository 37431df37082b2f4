"""Events are created, counted when they repeat, and dropped when there are too many."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
from unit.operator.situations import session
from wasession_api.kube.client import EVENTS, KubeClient, Unavailable
from wasession_api.kube.manifests import Manifest
from wasession_operator import event_recorder
from wasession_operator.event_recorder import BURST, COMBINED, EventRecorder
from wasession_operator.plan import Event


class Api:
    """An API server that has only Events."""

    def __init__(self) -> None:
        self.events: dict[str, Manifest] = {}
        self.requests = 0
        self.down = False
        self._numbers = itertools.count()

    async def create(self, resource: Any, manifest: Manifest) -> Manifest:
        assert resource is EVENTS
        self._request()
        name = f"{manifest['metadata']['generateName']}{next(self._numbers)}"
        self.events[name] = manifest | {"metadata": manifest["metadata"] | {"name": name}}
        return self.events[name]

    async def patch(
        self, resource: Any, namespace: str, name: str, patch: Manifest
    ) -> Manifest | None:
        assert (resource, namespace) == (EVENTS, "ns")
        self._request()
        if name not in self.events:
            return None
        self.events[name] |= patch
        return self.events[name]

    def _request(self) -> None:
        self.requests += 1
        if self.down:
            raise Unavailable("no answer")


class Fixture:
    def __init__(self) -> None:
        self.api = Api()
        self.now = 1000.0
        self.recorder = EventRecorder(cast(KubeClient, self.api), lambda: self.now)

    async def emit(self, reason: str, message: str, uid: str = "uid-1") -> None:
        self.recorder.emit(session(uid=uid), [Event("Warning", reason, message)], {})
        await self.recorder.close(60)

    def counts(self) -> dict[str, int]:
        return {event["message"]: event["count"] for event in self.api.events.values()}


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


async def test_an_event_names_its_session(fixture: Fixture) -> None:
    await fixture.emit("OOMKilled", "m" * 2000)
    [event] = fixture.api.events.values()
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "OOMKilled", 1)
    assert event["involvedObject"]["uid"] == "uid-1"
    assert len(event["message"]) == 1024


async def test_a_repeated_event_is_counted(fixture: Fixture) -> None:
    for _ in range(3):
        await fixture.emit("OOMKilled", "again")
    await fixture.emit("OOMKilled", "other")
    assert fixture.counts() == {"again": 3, "other": 1}
    fixture.now += event_recorder.SIMILAR_WITHIN
    await fixture.emit("OOMKilled", "again")
    assert len(fixture.api.events) == 3, "a new one after a while"
    fixture.api.events.clear()
    await fixture.emit("OOMKilled", "again")
    assert fixture.counts() == {"again": 1}, "Events expire"


async def test_many_texts_of_one_reason_are_combined(fixture: Fixture) -> None:
    for number in range(14):
        await fixture.emit("PodFailed", f"exit code {number}")
    await fixture.emit("OOMKilled", "another reason")
    counts = fixture.counts()
    assert len(counts) == event_recorder.SIMILAR_MAX + 2
    assert counts[f"{COMBINED}: exit code 13"] == 4


async def test_a_flood_is_cut_off_for_its_session_alone(fixture: Fixture) -> None:
    for number in range(BURST + 20):
        await fixture.emit(f"Reason{number}", "")
    assert fixture.api.requests == BURST
    await fixture.emit("Other", "", uid="uid-2")
    assert fixture.api.requests == BURST + 1
    fixture.now += event_recorder.REFILL
    await fixture.emit("Later", "")
    await fixture.emit("Later", "")
    assert fixture.api.requests == BURST + 2


async def test_a_failed_event_is_not_retried(fixture: Fixture) -> None:
    fixture.api.down = True
    await fixture.emit("OOMKilled", "m")
    fixture.api.down = False
    await fixture.emit("OOMKilled", "m")
    assert fixture.counts() == {"m": 1}


async def test_memory_is_bounded(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_recorder, "SESSIONS_MAX", 2)
    for number in range(5):
        await fixture.emit("OOMKilled", "m", uid=f"uid-{number}")
    assert list(fixture.recorder._budgets) == ["uid-3", "uid-4"]
