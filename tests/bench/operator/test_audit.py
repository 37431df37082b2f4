"""The audit log is evaluated correctly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.operator.audit import Audit, Write, by_kind, latencies


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


def write(verb: str, name: str, received: float, done: float, resource: str = "pods") -> Write:
    return Write("somebody", verb, resource, "ns", name, received, done)


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


def test_events_are_no_writes() -> None:
    writes = [
        write("create", "a", 1, 1),
        write("create", "b", 1, 1),
        write("create", "c", 1, 1, "events"),
    ]
    assert by_kind(writes) == {"create pods": 2}
