"""Which sessions a change of a class, or of another session of an owner, concerns."""

from __future__ import annotations

from typing import Any, cast

import pytest
from wasession_api.kube.client import KubeClient
from wasession_api.kube.manifests import Key, Manifest
from wasession_operator.session_classes import SessionClasses


class Cache(SessionClasses):
    """Records what it enqueues since the last ``take``."""

    def __init__(self) -> None:
        self.enqueued: list[Key] = []
        super().__init__(cast(KubeClient, None), self.enqueued.append, lambda _: None)
        self.version = 0
        self.stored: dict[Key, Manifest] = {}

    def take(self) -> set[Key]:
        assert len(set(self.enqueued)) == len(self.enqueued), "none twice"
        taken = set(self.enqueued)
        self.enqueued.clear()
        return taken

    def put(self, name: str, *, default: bool = False, generation: int = 1, **spec: Any) -> None:
        self.version += 1
        metadata: Manifest = {
            "name": name,
            "uid": name,
            "generation": generation,
            "resourceVersion": str(self.version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        if default:
            metadata["annotations"] = {"wasession.dev/is-default-class": "true"}
        status = spec.pop("status", {})
        obj = {"metadata": metadata, "spec": spec, "status": status}
        self.informer._upsert(("", name), obj)

    def remove(self, name: str) -> None:
        self.informer._remove(("", name), self.informer.objects["", name])

    def add(self, name: str, age: int = 0, namespace: str = "ns", **spec: Any) -> None:
        key = (namespace, name)
        created = f"2026-01-01T00:{age // 60:02}:{age % 60:02}Z"
        metadata = {"uid": f"uid-{name}", "creationTimestamp": created}
        obj = {"metadata": metadata, "spec": spec}
        self.upsert_session(key, self.stored.get(key), obj)
        self.stored[key] = obj

    def delete(self, name: str, namespace: str = "ns") -> None:
        self.delete_session((namespace, name), self.stored.pop((namespace, name)))

    def ahead(self, name: str) -> int:
        return self.sessions_ahead(("ns", name), self.stored["ns", name])


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.put("gold")
    cache.put("standard", default=True)
    cache.add("named", className="gold")
    cache.add("unnamed")
    cache.take()
    return cache


def test_a_class_that_changes_concerns_its_sessions(cache: Cache) -> None:
    cache.put("gold", generation=2, image="x:1")
    assert cache.take() == {("ns", "named")}
    cache.put("standard", default=True, generation=2, image="x:1")
    assert cache.take() == {("ns", "unnamed")}
    cache.remove("gold")
    assert cache.take() == {("ns", "named")}
    assert cache.of(cache.stored["ns", "named"]) is None
    cache.put("gold", generation=3)
    assert cache.take() == {("ns", "named")}


def test_its_status_concerns_nobody(cache: Cache) -> None:
    used = [{"operator": "o", "sessions": 1, "namespaces": 1}]
    cache.put("gold", status={"usedBy": used})
    cache.put("standard", default=True, status={"usedBy": used})
    assert cache.take() == set()


def test_the_default_class_may_change(cache: Cache) -> None:
    def class_of(name: str) -> str | None:
        of = cache.of(cache.stored["ns", name])
        return of.name if of is not None else None

    assert (class_of("named"), class_of("unnamed")) == ("gold", "standard")
    cache.put("another", default=True)
    assert cache.take() == {("ns", "unnamed")}
    assert class_of("unnamed") == "another", "of two of one age, the first by name"
    cache.remove("another")
    assert cache.take() == {("ns", "unnamed")}
    cache.put("standard")
    assert cache.take() == {("ns", "unnamed")}
    assert class_of("unnamed") is None


def test_who_uses_a_class(cache: Cache) -> None:
    assert (cache.usage("gold"), cache.usage("standard")) == ((1, 1), (1, 1))
    cache.add("b", className="standard")
    cache.add("c", namespace="other")
    assert cache.usage("standard") == (3, 2)
    assert set(cache.sessions("standard", "ns")) == {("ns", "unnamed"), ("ns", "b")}
    cache.add("b", className="gold")
    assert (cache.usage("gold"), cache.usage("standard")) == ((2, 1), (2, 2))
    for name in ("named", "b"):
        cache.delete(name)
    assert cache.usage("gold") == (0, 0)
    assert not cache.is_used("gold", "ns")
    assert cache.changed.is_set()


def test_the_next_session_of_an_owner_takes_the_place_of_one_that_goes(cache: Cache) -> None:
    cache.put("gold", generation=2, limits={"sessionsPerOwner": 2})
    for age in range(5):
        cache.add(f"s{age}", age, owner="o", className="gold")
        cache.add(f"t{age}", age, owner="p", className="gold")
    assert [cache.ahead(f"s{age}") for age in range(5)] == [0, 1, 2, 3, 4]
    cache.take()
    cache.delete("s0")
    assert cache.take() == {("ns", "s2")}
    cache.delete("s4")
    assert cache.take() == set()
    cache.delete("s2")
    assert cache.take() == {("ns", "s3")}
    cache.delete("s3")
    cache.delete("s1")
    assert cache.take() == set()


def test_an_older_session_takes_the_place_of_a_younger_one(cache: Cache) -> None:
    cache.put("gold", generation=2, limits={"sessionsPerOwner": 1})
    cache.add("young", 2, owner="o", className="gold")
    cache.take()
    cache.add("old", 1, owner="o", className="gold")
    assert cache.take() == {("ns", "young")}
    cache.add("old", 1, owner="somebody else", className="gold")
    assert cache.take() == {("ns", "young")}
    assert cache.ahead("young") == 0


def test_thousands_of_sessions_of_one_owner(cache: Cache) -> None:
    cache.put("gold", generation=2, limits={"sessionsPerOwner": 10})
    names = [f"s{number}" for number in range(5000)]
    for number, name in enumerate(names):
        cache.add(name, number % 3600, owner="o", className="gold")
    for name in names:
        cache.delete(name)
    assert len(cache.enqueued) < 2 * len(names)
