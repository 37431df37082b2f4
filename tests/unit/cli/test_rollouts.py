"""kubectl wasession rollout: shown, paused, resumed and undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from wasession_api.v1alpha1 import API_VERSION, CLASS_KIND
from wasession_cli.exits import Exit, Failure
from wasession_cli.rollouts import undone

from .conftest import Manifest, Result, Server

Command = Callable[..., Result]

SINCE = "2026-11-24T10:00:00Z"
HALT = {"id": "0123", "session": "team/sales", "reason": "LoggedOutByPhone", "message": "Gone."}
OLD = json.dumps({"image": "pod:1", "template": {"browser": {"locale": "en"}}})


def make_class(phase: str = "Halted", **rollout: Any) -> Manifest:
    status = {
        "operator": "system/operator", "revision": "new", "phase": phase, "since": SINCE,
        "stable": {"name": "old", "template": OLD}, "started": SINCE, "stepStarted": SINCE,
        "total": 5, "updated": 1, "ready": 0, **rollout,
    }  # fmt: skip
    return {
        "apiVersion": API_VERSION,
        "kind": CLASS_KIND,
        "metadata": {"name": "default", "resourceVersion": "7"},
        "spec": {"image": "pod:2", "extraArgs": ["--a"], "rollout": {}, "allowedNamespaces": ["a"]},
        "status": {"rollouts": [status]},
    }


def test_status_says_who_halts_it_and_what_to_do(server: Server, command: Command) -> None:
    server.classes = [make_class(halted=HALT, message="team/sales is not well.")]
    out = command("rollout", "status", "default").out
    assert "Halted by:   team/sales: Gone." in out
    assert "1 of 5 updated, 0 Ready" in out
    assert "kubectl wasession rollout undo default" in out


def test_a_halt_is_accepted_by_its_id(server: Server, command: Command) -> None:
    server.classes = [make_class(halted=HALT)]
    assert command("rollout", "resume", "default").code == Exit.OK
    annotations = server.classes[0]["metadata"]["annotations"]
    assert annotations == {"wasession.dev/resume-rollout": "0123"}


def test_a_rollout_is_paused_and_resumed(server: Server, command: Command) -> None:
    server.classes = [make_class("Canary")]
    assert command("rollout", "resume", "default").code == Exit.ERROR, "it is not paused"
    command("rollout", "pause", "default")
    assert server.classes[0]["spec"]["rollout"] == {"paused": True}
    command("rollout", "resume", "default")
    assert server.classes[0]["spec"]["rollout"] == {"paused": False}


def test_an_undo_gives_back_what_concerns_pods_and_nothing_else(
    server: Server, command: Command
) -> None:
    server.classes = [make_class()]
    assert "back to revision old" in command("rollout", "undo", "default").out
    assert server.classes[0]["spec"] == {
        "image": "pod:1", "template": {"browser": {"locale": "en"}},
        "rollout": {}, "allowedNamespaces": ["a"],
    }  # fmt: skip


def test_after_a_complete_rollout_the_one_before_is_given_back() -> None:
    previous = {"name": "older", "template": '{"image": "pod:0"}'}
    stable = {"name": "new", "template": OLD}
    changed, name = undone(make_class("Complete", stable=stable, previous=previous))
    assert (name, changed["spec"]["image"]) == ("older", "pod:0")


@pytest.mark.parametrize("stable", [{"name": "old"}, {"name": "old", "template": "[]"}])
def test_without_a_known_template_nothing_is_undone(stable: Manifest) -> None:
    with pytest.raises(Failure, match="no template"):
        undone(make_class(stable=stable))


@pytest.mark.parametrize("verb", ["status", "pause", "resume", "undo"])
def test_a_class_without_rollout_is_left_alone(server: Server, command: Command, verb: str) -> None:
    server.classes = [make_class()]
    del server.classes[0]["spec"]["rollout"]
    result = command("rollout", verb, "default")
    assert result.code == Exit.ERROR
    assert "has no spec.rollout" in result.err
    assert [call.method for call in server.calls] == ["GET"]
