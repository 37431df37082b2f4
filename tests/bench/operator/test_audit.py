"""The audit log is evaluated correctly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.operator.audit import Audit, Write, by_kind, late, latencies


def event(
    second: float, verb: str = "create", resource: str = "pods", code: int = 201, **more: str
) -> str:
    received = f"2026-01-02T03:04:{second:09.6f}Z"
    what = {"resource": resource, "namespace": "ns", "name": "a", **more}
    return json.dumps(
        {
            "verb": verb,
            "user": {"username": "somebody"},
            "objectRef": what,
            "responseStatus": {"code": code},
            "requestReceivedTimestamp": received,
            "stageTimestamp": received,
        }
    )


def test_what_was_carried_out_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    audit = Audit(log)
    assert audit.new() == []
    half = event(3)
    log.write_text(
        "\n".join(
            [event(1), event(2, code=409), event(2, "patch", subresource="status"), half[:20]]
        )
    )
    assert [(w.verb, w.resource) for w in audit.new()] == [
        ("create", "pods"),
        ("patch", "pods/status"),
    ]
    with log.open("a") as more:
        more.write(f"{half[20:]}\n")
    assert [w.verb for w in audit.new()] == ["create"]
    assert audit.new() == []


def test_a_rotated_log_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    audit = Audit(log)
    log.write_text(f"{event(1)}\n{event(2)}\n")
    assert len(audit.new()) == 2
    log.rename(tmp_path / "audit-1.log")
    log.write_text(f"{event(3, 'patch')}\n")
    assert [w.verb for w in audit.new()] == ["patch"]


def test_a_lease_is_read_with_its_holder(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    taken = json.loads(event(1, "update", "leases", 200))
    taken |= {"userAgent": "wasession-operator/pod-1"}
    taken |= {"responseObject": {"spec": {"holderIdentity": "pod-1"}}}
    released = taken | {"responseObject": {"spec": {"holderIdentity": None}}}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in (taken, released)))
    assert [(w.replica, w.holder) for w in Audit(log).new()] == [("pod-1", "pod-1"), ("pod-1", "")]


def test_a_write_that_timed_out_may_have_been_carried_out(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{line}\n" for line in (event(1, code=504), event(2))))
    timed_out, certain = Audit(log).new()
    assert (timed_out.timed_out, certain.timed_out) == (True, False)
    cause = [write("create", "a", timed_out.done - 1, timed_out.done - 1)]
    assert latencies(cause, [timed_out, certain]) == pytest.approx([2000])
    assert latencies(cause, [timed_out]) == pytest.approx([1000])


def write(
    verb: str,
    name: str,
    received: float,
    done: float,
    resource: str = "pods",
    replica: str = "",
    holder: str = "",
) -> Write:
    return Write("somebody", replica, verb, resource, "ns", name, received, done, holder)


def test_latencies_go_to_the_first_effect_after_its_cause() -> None:
    deleted = [write("delete", "a", 10.0, 10.1), write("delete", "b", 11.0, 11.1)]
    created = [
        write("create", "a", 1.0, 1.1),
        write("create", "b", 11.1, 11.25),
        write("create", "a", 10.2, 10.5),
    ]
    assert latencies(deleted, created) == pytest.approx([500, 250])
    with pytest.raises(LookupError):
        latencies([write("delete", "c", 1.0, 1.1)], created)


def test_a_write_after_the_takeover_is_late() -> None:
    def lease(shard: int, at: float, replica: str, holder: str) -> Write:
        return write("update", f"op-shard-{shard}-of-2", at, at, "leases", replica, holder)

    def pod(shard: int, at: float, replica: str) -> Write:
        return write("create", str(shard), at - 0.1, at, "pods", replica)

    writes = [
        pod(0, 9.0, "b"),  # nothing is known of the shard's holder
        lease(0, 10.0, "a", "a"),
        lease(1, 10.0, "b", "b"),
        pod(0, 11.0, "a"),
        pod(1, 11.0, "b"),
        lease(0, 20.0, "b", "b"),
        pod(0, 20.05, "a"),  # sent before, done after
        pod(0, 20.1, "b"),
        lease(1, 30.0, "b", ""),
        pod(1, 31.0, "b"),
        write("update", "op-member-a", 32.0, 32.0, "leases", "a", "a"),
    ]
    found = late(writes, lambda write: int(write.name))
    assert [(w.name, w.replica, w.done) for w in found] == [("0", "a", 20.05), ("1", "b", 31.0)]


def test_events_and_leases_are_no_writes() -> None:
    writes = [
        write("create", "a", 1, 1),
        write("create", "b", 1, 1),
        write("create", "c", 1, 1, "events"),
        write("update", "d", 1, 1, "leases"),
    ]
    assert by_kind(writes) == {"create pods": 2}
