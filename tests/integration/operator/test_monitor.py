"""The monitor detects the violations that it is there for."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes import proxy
from support.fakes.api import Api, ApiError
from support.fakes.history import Change, violations
from support.fakes.proxy import Call
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


# --- several replicas -----------------------------------------------------------------------------

CONDITIONS = {"uid": "session", "resourceVersion": "1"}
SALES = 0  # its shard, of four


def write(version: int, replica: str, **values: Any) -> Call:
    """Return a write to session ns/sales, or something else with the same UID."""
    values = {"resource": "whatsappsessions/status", "verb": "PATCH", **values}
    call = Call(namespace="ns", name="sales", watch=False, replica=replica, **values)
    call.body = call.body or {"metadata": CONDITIONS}
    call.version, call.uid, call.status = version, call.uid or "session", 200
    return call


def lease(version: int, holder: str, *, shard: int = 0, of: int = 1, sent: float = 0.0) -> Call:
    """Return the write by which a replica acquires or renews a Lease; without one, releases it."""
    call = write(version, holder, resource="leases", uid="lease", sent=sent)
    call.name = f"operator-shard-{shard}-of-{of}"
    call.body = {"metadata": CONDITIONS, "spec": {"holderIdentity": holder}}
    return call


def seen(*calls: Call) -> list[str]:
    return list(violations([session(1)], calls=calls))


TAKEN_OVER = [lease(2, "a"), lease(10, "b")]


@pytest.mark.parametrize(
    "calls",
    [
        [*TAKEN_OVER, write(5, "a"), write(11, "b")],
        [lease(2, "a"), write(5, "a"), lease(6, "a"), write(7, "a")],
        # Another shard is taken over.
        [lease(2, "a", shard=SALES, of=4), lease(3, "b", shard=1, of=4), write(5, "a")],
        # One installation has given way to another, or one number of shards to another.
        [
            *(lease(2, "a"), write(5, "a"), lease(6, "")),
            *(lease(9, "b", shard=SALES, of=4), write(11, "b")),
        ],
        # Two have acquired, and one has given way before it has done anything.
        [lease(2, "a"), lease(3, "b", shard=SALES, of=4), write(5, "a"), write(11, "a")],
        # What has changed nothing leaves the version at what it was.
        [*TAKEN_OVER, write(1, "b")],
        [*TAKEN_OVER, write(5, "a", apply=True), write(5, "b", apply=True)],
        # It was sent while nobody else had the shard; nothing can make the API server reject it.
        [lease(2, "a"), lease(10, "b", sent=6.0), write(11, "a", verb="POST", sent=5.0)],
        # The first holder takes it back.
        [*TAKEN_OVER, write(5, "a"), write(11, "b"), lease(12, "a"), write(13, "a")],
    ],
)
def test_holders_may_write(calls: list[Call]) -> None:
    assert seen(*calls) == []
    assert seen(*reversed(calls)) == []


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([*TAKEN_OVER, write(11, "a")], "without its shard"),
        ([*TAKEN_OVER, write(5, "b")], "without its shard"),
        (
            [lease(2, "a"), lease(10, "b", sent=4.0), write(11, "a", verb="POST", sent=5.0)],
            "without its shard",
        ),
        (
            [lease(2, "a"), lease(10, "b", sent=6.0), write(11, "a", sent=5.0)],
            "without its shard",
        ),
        ([write(5, "a")], "without its shard"),
        ([lease(2, "a"), lease(3, ""), write(5, "a")], "without its shard"),
        (
            [lease(2, "a", shard=1, of=4), lease(3, "b", shard=SALES, of=4), write(5, "a")],
            "without its shard",
        ),
        (
            [lease(2, "a"), lease(3, "b", shard=SALES, of=4), write(7, "b"), write(11, "a")],
            "and so did 'b' at 7",
        ),
    ],
)
def test_a_write_of_one_that_is_not_the_holder_is_seen(calls: list[Call], words: str) -> None:
    [found] = seen(*calls)
    assert words in found


@pytest.mark.parametrize(("version", "late"), [(9, False), (11, True)])
def test_a_late_deletion_is_seen(version: int, late: bool) -> None:
    """The response to a deletion may be without a version: then the watch has it."""
    changes = [
        session(1, valid=False),
        made(4, "ADDED", "claim"),
        made(version, "DELETED", "claim"),
    ]
    deletion = write(0, "a", resource="persistentvolumeclaims", verb="DELETE", uid="claim")
    deletion.body = {"preconditions": CONDITIONS}
    found = list(violations(changes, calls=[*TAKEN_OVER, deletion]))
    assert ["without its shard" in text for text in found] == [True] * late


def test_two_names_in_a_status_are_seen() -> None:
    def written(version: int, *managers: str) -> Change:
        change = session(version)
        return Change(version, change.plural, change.type, change.object, frozenset(managers))

    assert list(violations([written(2, "wasession-operator", "tests")])) == []
    [found] = violations([written(2, "wasession-operator", "kopf", "tests")])
    assert "kopf and wasession-operator wrote the status of session sales" in found


TESTS = [{"op": "test", "path": f"/metadata/{name}", "value": "1"} for name in CONDITIONS]


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, None),
        ({"body": {"spec": {}}}, "no resourceVersion and uid"),
        ({"body": {"metadata": {"uid": "session"}}}, "no resourceVersion"),
        ({"body": {"metadata": {"resourceVersion": "1"}}}, "no uid"),
        ({"body": TESTS}, None),
        ({"body": TESTS[:1]}, "no resourceVersion"),
        ({"verb": "DELETE", "body": {"preconditions": CONDITIONS}}, None),
        ({"verb": "DELETE", "body": {"preconditions": {"uid": "session"}}}, "no resourceVersion"),
        ({"verb": "DELETE", "body": {"gracePeriodSeconds": 0}}, "no resourceVersion and uid"),
        ({"verb": "POST", "body": {"metadata": {"name": "sales"}}}, None),
        ({"resource": "secrets", "apply": True, "body": {"metadata": {"name": "sales"}}}, None),
        ({"resource": "leases", "body": {"spec": {}}}, None),
    ],
)
def test_a_write_without_preconditions_is_seen(values: dict[str, Any], missing: str | None) -> None:
    found = seen(lease(2, "a"), write(5, "a", **values))
    assert [text.partition(": ")[2].rpartition(": ")[2] for text in found] == (
        [] if missing is None else [missing]
    )


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
        with pytest.raises(ApiError, match="410"):
            await anext(watch)
    finally:
        await api.close()
