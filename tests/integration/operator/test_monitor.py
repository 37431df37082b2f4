"""The monitor detects the violations that it is there for."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes import proxy
from support.fakes.api import Api, ApiError
from support.fakes.history import Change, violations
from support.fakes.world import Environment, World

CLAIM = ("persistentvolumeclaims", "ns", "wasession-sales")


def session(
    version: int, *, valid: bool = True, deleting: bool = False, kind: str = "MODIFIED"
) -> Change:
    metadata: dict[str, Any] = {"namespace": "ns", "name": "sales", "uid": "session"}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    return Change(
        version, "whatsappsessions", kind, {"metadata": metadata, "status": {"sessionValid": valid}}
    )


def pod(version: int, kind: str, uid: str, name: str = "wasession-sales") -> Change:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "wasession-sales"}}]
    metadata = {"namespace": "ns", "name": name, "uid": uid}
    return Change(version, "pods", kind, {"metadata": metadata, "spec": {"volumes": volumes}})


def made(
    version: int,
    kind: str,
    uid: str,
    plural: str = "persistentvolumeclaims",
    *,
    deleting: bool = False,
) -> Change:
    labels = {"wasession.dev/session": "sales"}
    metadata: dict[str, Any] = {
        "namespace": "ns",
        "name": "wasession-sales",
        "uid": uid,
        "labels": labels,
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    return Change(version, plural, kind, {"metadata": metadata})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([pod(1, "ADDED", "a"), pod(2, "ADDED", "b", "other")], "while another one had claim"),
        ([session(1), made(2, "ADDED", "a")], "an empty claim replaced"),
        (
            [session(1, valid=False), made(2, "ADDED", "a"), session(3), made(4, "DELETED", "a")],
            "was deleted while",
        ),
        (
            [
                session(1, valid=False),
                made(2, "ADDED", "a"),
                session(3),
                made(4, "MODIFIED", "a", deleting=True),
            ],
            "was deleted while",
        ),
        (
            [session(1), made(2, "ADDED", "a", "secrets"), made(3, "ADDED", "b", "secrets")],
            "created twice",
        ),
    ],
)
def test_what_must_not_be_is_seen(changes: list[Change], words: str) -> None:
    [found] = violations(changes)
    assert words in found


@pytest.mark.parametrize(
    "changes",
    [
        [pod(1, "ADDED", "a"), pod(2, "DELETED", "a"), pod(3, "ADDED", "b")],
        [
            session(1, valid=False),
            made(2, "ADDED", "a"),
            session(3),
            session(4, deleting=True),
            made(5, "DELETED", "a"),
        ],
        [
            session(1, valid=False),
            made(2, "ADDED", "a"),
            session(3),
            session(4, kind="DELETED"),
            session(5, valid=False),
        ],
    ],
)
def test_what_may_be_is_let_be(changes: list[Change]) -> None:
    assert list(violations(changes)) == []
    assert list(violations(reversed(changes))) == []


def test_what_the_test_took_away_is_not_the_operators_doing() -> None:
    changes = [session(1, valid=False), made(2, "ADDED", "a"), session(3), made(4, "DELETED", "a")]
    assert list(violations(changes, [CLAIM])) == []


async def test_a_watch_of_the_tests_that_is_cut_off_goes_on_where_it_was(
    world: World, environment: Environment
) -> None:
    api = Api(world.proxy.url, environment.network.connector())
    try:
        before = (await api.list("whatsappsessions", world.namespace))["metadata"][
            "resourceVersion"
        ]
        watch = api.watch("whatsappsessions", before, world.namespace)
        world.proxy.fail(proxy.cut_mid_line(1), "GET", "whatsappsessions?watch")
        seen = []
        for name in ("one", "two", "three"):
            await world.create(name)
            seen.append((await anext(watch))["object"]["metadata"]["name"])
        assert seen == ["one", "two", "three"]
        world.proxy.fail(proxy.expired, "GET", "whatsappsessions?watch")
        world.proxy.cut()
        with pytest.raises(ApiError, match="too old"):
            await anext(watch)
    finally:
        await api.close()
