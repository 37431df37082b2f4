"""What is decided about a rollout counts once it is written; nothing is written without one."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from unit.operator.situations import SETTINGS
from wasession_api.kube.client import EVENTS, Conflict, KubeClient, Rejected, Resource, Unavailable
from wasession_api.kube.manifests import Key, Manifest, condition
from wasession_cli.rollouts import undone
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.plan import Backoff
from wasession_operator.rollouts import Rollouts
from wasession_operator.session_classes import own_rollout
from wasession_operator.sharding.shards import Admission, Shards

SINCE = "2026-01-02T03:04:05Z"
OTHER = {
    "operator": "a/another", "revision": "x", "stable": {"name": "x"}, "phase": "Complete",
    "since": SINCE, "started": SINCE, "stepStarted": SINCE,
}  # fmt: skip


class Api:
    """An API server that has a class; it merges its status as server-side apply does."""

    def __init__(self) -> None:
        self.applied: list[Manifest] = []
        self.events: list[Manifest] = []
        self.attempts = 0
        self.error: Exception | None = None
        self.spec: Manifest = {}

    async def apply(self, _: Resource, manifest: Manifest, sub: str, *, manager: str) -> Manifest:
        assert (sub, manager) == ("/status", f"{SETTINGS.operator_name}/rollout")
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.applied.append(manifest)
        metadata = manifest["metadata"] | {"uid": "u", "generation": self.spec["generation"]}
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        rollouts = [OTHER, *manifest["status"]["rollouts"]]
        status = manifest["status"] | {"rollouts": rollouts}
        return {"metadata": metadata, "spec": self.spec["spec"], "status": status}

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        assert resource is EVENTS
        self.events.append(manifest)
        return manifest


class Rig:
    """A class with three sessions that are Ready."""

    def __init__(self, **spec: Any) -> None:
        self.api = Api()
        kube = cast(KubeClient, self.api)
        self.cache = ClusterCache(
            kube, [], mock.Mock(), watch_nodes=False, operator=SETTINGS.operator_name
        )
        self.admission = Admission("", frozenset())
        shards = SimpleNamespace(
            cache=self.cache, settings=SETTINGS, leader_client=lambda _: kube,
            admission=lambda _: self.admission, admit=self._admit,
        )  # fmt: skip
        self.rollouts = Rollouts(cast(Shards, shards))
        self.generation, self.version = 0, 10
        self.status: Manifest = {"rollouts": [OTHER]}
        self.change({"template": {"updateStrategy": "RollingUpdate"}, **spec})
        for name in "abc":
            self.add_session(name)

    def _admit(self, _: str, admission: Admission) -> None:
        self.admission = admission

    def change(self, spec: Manifest) -> None:
        """Act as a person who changes the class."""
        present = self.cache.classes.informer.objects.get(("", "gold"))
        self.generation += 1
        self.version += 10
        self.api.spec = {"spec": spec, "generation": self.generation}
        metadata = {"name": "gold", "uid": "u", "resourceVersion": str(self.version)}
        status = self.status if present is None else present["status"]
        metadata_now: dict[str, Any] = metadata | {"generation": self.generation}
        self.cache.classes.informer._upsert(
            ("", "gold"), {"metadata": metadata_now, "spec": spec, "status": status}
        )

    def add_session(self, name: str) -> None:
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": SINCE}]
        status = {"phase": "Ready", "sessionValid": True, "podUID": name, "conditions": conditions}
        metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "5"}
        self.cache.upsert_session(
            {"metadata": metadata, "spec": {"className": "gold"}, "status": status}
        )

    @property
    def admitted(self) -> frozenset[Key]:
        return self.admission.sessions

    @property
    def phases(self) -> list[str]:
        return [one["status"]["rollouts"][0]["phase"] for one in self.api.applied]

    def spec(self, image: str) -> Manifest:
        template = {"updateStrategy": "RollingUpdate"}
        return {"template": template, "rollout": {}, "image": image}


async def test_nothing_is_written_about_a_class_without_rollout() -> None:
    rig = Rig()
    await rig.rollouts._look_at_all()
    rig.change({"image": "pod:2"})
    await rig.rollouts._look_at_all()
    assert (rig.api.applied, rig.api.events, rig.admitted) == ([], [], frozenset())


async def test_what_a_class_says_first_is_stable_and_its_next_change_has_a_canary() -> None:
    rig = Rig(rollout={}, image="pod:1")
    for _ in range(3):
        await rig.rollouts._look_at_all()
    assert rig.phases == ["Complete"], "once"
    rig.change(rig.spec("pod:2"))
    await rig.rollouts._look_at_all()
    assert rig.phases == ["Complete", "Canary"]
    assert len(rig.admitted) == 1
    [event] = rig.api.events
    assert (event["reason"], event["metadata"]["namespace"]) == ("RolloutStarted", "default")
    obj = rig.cache.classes.informer.objects["", "gold"]
    shown = condition(obj, "RolledOut")
    assert (shown["status"], shown["reason"]) == ("False", "Canary")
    assert obj["status"]["rollouts"][0] == OTHER, "another operator's is left alone"


@pytest.mark.parametrize("error", [Rejected("forbidden"), Unavailable("503"), Conflict("changed")])
async def test_nobody_is_admitted_before_it_is_written(error: Exception) -> None:
    rig = Rig(rollout={}, image="pod:1")
    await rig.rollouts._look_at_all()
    rig.change(rig.spec("pod:2"))
    rig.api.error = error
    for _ in range(2):
        await rig.rollouts._look_at_all()
        assert rig.admitted == frozenset()
    rig.api.error = None
    rig.rollouts._backoffs.clear()
    await rig.rollouts._look_at_all()
    assert len(rig.admitted) == 1


async def test_a_status_that_is_rejected_is_not_written_each_second() -> None:
    """The right to write it may be missing for ever."""
    rig = Rig(rollout={}, image="pod:1")
    rig.api.error = Rejected("forbidden")
    for _ in range(20):
        await rig.rollouts._look_at_all()
    assert rig.api.attempts == 1
    rig.api.error = None
    rig.rollouts._backoffs["gold"] = Backoff(1, datetime.now(UTC))
    await rig.rollouts._look_at_all()
    assert rig.phases == ["Complete"]
    assert rig.rollouts._backoffs == {}


async def test_a_class_that_has_no_rollout_any_more_shows_none() -> None:
    rig = Rig(rollout={}, image="pod:1")
    await rig.rollouts._look_at_all()
    rig.change(rig.spec("pod:2") | {"rollout": None})
    await rig.rollouts._look_at_all()
    await rig.rollouts._look_at_all()
    [_, ended] = rig.api.applied
    assert ended["status"] == {"rollouts": [], "conditions": []}
    assert rig.admitted == frozenset()


async def test_a_class_with_an_invalid_spec_is_left_as_it_is() -> None:
    rig = Rig(rollout={}, image="pod:1")
    await rig.rollouts._look_at_all()
    rig.change(rig.spec("pod:2") | {"rollout": {"steps": ["none"]}})
    await rig.rollouts._look_at_all()
    assert rig.phases == ["Complete"]


@pytest.mark.parametrize("entry", [{}, {"operator": 5}, OTHER | {"stable": "x", "since": 1}])
async def test_what_somebody_has_edited_of_another_rollout_stops_nothing(entry: Manifest) -> None:
    rig = Rig(rollout={}, image="pod:1")
    obj = rig.cache.classes.informer.objects["", "gold"]
    rig.cache.classes.informer._upsert(("", "gold"), obj | {"status": {"rollouts": [entry]}})
    await rig.rollouts._look_at_all()
    assert rig.phases == ["Complete"]


TIMES = ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59Z")


@pytest.mark.parametrize("phase", ["Canary", "Soaking", "Progressing", "Future"])
@pytest.mark.parametrize("field", ["since", "started", "stepStarted", "at"])
@pytest.mark.parametrize("time", TIMES)
async def test_times_that_somebody_has_edited_stop_no_operator(
    phase: str, field: str, time: str
) -> None:
    rig = Rig(rollout={}, image="pod:1")
    await rig.rollouts._look_at_all()
    [first] = rig.api.applied
    rollout = first["status"]["rollouts"][0] | {"phase": phase, "stable": {"name": "a"}, "step": 1}
    update = {"at": SINCE, "revision": rollout["revision"], "wasReady": True, "wasValid": True}
    (update if field == "at" else rollout)[field] = time
    obj = rig.cache.classes.informer.objects["", "gold"]
    metadata = obj["metadata"] | {"resourceVersion": "50"}
    edited = obj | {"metadata": metadata, "status": {"rollouts": [rollout]}}
    rig.cache.classes.informer._upsert(("", "gold"), edited)
    for name in "ab":
        session = rig.cache.sessions["ns", name]
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": time}
        status = session["status"] | {"revision": rollout["revision"], "conditions": [ready]}
        changed = {"metadata": session["metadata"] | {"resourceVersion": "6"}}
        changed["status"] = status | {"update": update | {"done": name == "a"}}
        rig.cache.upsert_session(session | changed)
    for _ in range(3):
        await rig.rollouts._look_at_all()
    assert own_rollout(rig.cache.classes.informer.objects["", "gold"], SETTINGS.operator_name)


async def test_an_undo_leads_to_the_very_revision_that_was_stable() -> None:
    """Also of a class that leaves the image to the operator."""
    rig = Rig(rollout={})
    await rig.rollouts._look_at_all()
    rig.change(rig.spec("pod:2"))
    await rig.rollouts._look_at_all()
    changed, _ = undone(rig.cache.classes.informer.objects["", "gold"])
    rig.change(changed["spec"])
    await rig.rollouts._look_at_all()
    last = rig.api.applied[-1]["status"]["rollouts"][0]
    assert (last["phase"], last["revision"]) == ("Complete", last["stable"]["name"])
