"""Replicas of the operator take over from each other, and sessions do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import Cluster
from support.cluster.waiting import wait_for
from support.standin import Phone
from support.testbed import CHART, SYSTEM, Session, Testbed

EXAMPLE = Path(__file__).parents[1] / "demo" / "session.yaml"
NAMESPACE = "e2e-replicas"
RELEASE, OPERATOR = "wasession", "wasession-operator"
PHONES = {"one": "15553330001", "two": "15553330002"}  # in different shards of two
TAKEOVER = 60.0  # seconds; a Lease lasts 10


@pytest.fixture(scope="module")
def sessions(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Session]]:
    """Link two sessions, and spread the operator's replicas over the nodes again.

    The sessions run on the stand-in's node, so that the other one can be lost without them.
    """
    kubectl = bed.cluster.kubectl
    kubectl("create", "namespace", NAMESPACE)
    node = kubectl("-n", "standin", "get", "pods", "-o", "jsonpath={.items[0].spec.nodeName}")
    pinned = {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}
    with bed.session_class(NAMESPACE, podTemplate=pinned) as class_name:
        directory = tmp_path_factory.mktemp("replicas")
        linked = [link(bed, directory, name, phone, class_name) for name, phone in PHONES.items()]
        kubectl("-n", SYSTEM, "rollout", "restart", f"deployment/{OPERATOR}")
        rolled_out(bed)
        yield linked
        kubectl("delete", "namespace", NAMESPACE)


def link(bed: Testbed, directory: Path, name: str, phone: str, class_name: str) -> Session:
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"] = {"name": name}
    manifest["spec"]["className"] = class_name
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest))
    session = bed.session(name, NAMESPACE)
    session.apply(path)
    session.wait_phase("Authenticating")
    with bed.phone() as url:
        asyncio.run(Phone(url).scan(session.pairing_code(), phone))
    session.wait_ready()
    return session


def rolled_out(bed: Testbed) -> None:
    """Wait until all replicas are those of the last revision, and Ready."""
    bed.cluster.kubectl(
        *("-n", SYSTEM, "rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")
    )


def replicas(bed: Testbed) -> dict[str, dict[str, Any]]:
    """Return the pods of the operator that are not terminating, by name."""
    selector = "app.kubernetes.io/component=operator"
    output = bed.cluster.kubectl("-n", SYSTEM, "get", "pods", "-l", selector, "-o", "json")
    return {
        pod["metadata"]["name"]: pod
        for pod in json.loads(output)["items"]
        if "deletionTimestamp" not in pod["metadata"]
    }


def holders(bed: Testbed, shards: int) -> list[str]:
    """Return the pods that hold the shards, in order; a shard without a holder has ""."""
    selector = "wasession.dev/lease=shard"
    output = bed.cluster.kubectl("-n", SYSTEM, "get", "leases", "-l", selector, "-o", "json")
    by_name = {
        lease["metadata"]["name"]: lease["spec"].get("holderIdentity") or ""
        for lease in json.loads(output)["items"]
    }
    return [by_name.get(f"{OPERATOR}-shard-{index}-of-{shards}", "") for index in range(shards)]


def leader(bed: Testbed) -> str:
    """Wait until a replica that is there holds the only shard; return it."""

    def is_held() -> bool:
        return holders(bed, 1)[0] in replicas(bed)

    wait_for("a replica to hold the shard", is_held, TAKEOVER)
    return holders(bed, 1)[0]


def delete_leader(bed: Testbed, *options: str) -> str:
    """Delete the pod of the replica that acts; return its name."""
    name = leader(bed)
    bed.cluster.kubectl("-n", SYSTEM, "delete", "pod", name, "--wait=false", *options)
    return name


@contextlib.contextmanager
def undisturbed(*sessions: Session) -> Iterator[None]:
    """Check that meanwhile the sessions are Ready all the time, each in the same container."""
    before = [containers(session) for session in sessions]
    with contextlib.ExitStack() as stack:
        recorded = [stack.enter_context(session.recorded_phases()) for session in sessions]
        yield
        assert recorded == [["Ready"]] * len(sessions)
    assert [containers(session) for session in sessions] == before


def containers(session: Session) -> list[str]:
    return [status["containerID"] for status in session.pod()["status"]["containerStatuses"]]


def replaced(session: Session) -> None:
    """Delete the session's pod, and wait until the session is restored in another one."""
    pod, restorations = session.pod()["metadata"]["uid"], session.status["restorations"]
    session.kubectl("delete", "pod", session.status["podName"], "--wait=false")
    session.wait(f"jsonpath={{.status.restorations}}={restorations + 1}")
    session.wait_ready()
    assert session.pod()["metadata"]["uid"] != pod


def served(session: Session) -> None:
    """Change something that no pod depends on, and wait until an operator has seen it."""
    spec = {"logoutOnDelete": not session.resource["spec"].get("logoutOnDelete", False)}
    patch = json.dumps({"spec": spec})
    session.kubectl("patch", "wasession", session.name, "--type=merge", "-p", patch)
    generation = session.resource["metadata"]["generation"]
    session.wait(f"jsonpath={{.status.observedGeneration}}={generation}")


def test_two_replicas_are_ready_on_different_nodes(bed: Testbed, sessions: list[Session]) -> None:
    pods = replicas(bed)
    assert len({pod["spec"]["nodeName"] for pod in pods.values()}) == len(pods) == 2
    for pod in pods.values():
        conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
        assert conditions["Ready"] == "True", "readiness does not depend on holding a shard"
    assert leader(bed) in pods
    allowed = "jsonpath={.status.disruptionsAllowed}=1"
    bed.cluster.kubectl(
        *("-n", SYSTEM, "wait", f"--for={allowed}", f"pdb/{OPERATOR}", "--timeout=60s")
    )


@pytest.mark.parametrize("options", [(), ("--grace-period=0", "--force")], ids=["ends", "killed"])
def test_another_replica_takes_over(
    bed: Testbed, sessions: list[Session], options: tuple[str, ...]
) -> None:
    """A session pod that is lost at the same time is replaced; other sessions go on."""
    one, two = sessions
    with undisturbed(one):
        before = delete_leader(bed, *options)
        replaced(two)
        assert leader(bed) != before
    rolled_out(bed)


def test_shards_move_without_a_restart(bed: Testbed, sessions: list[Session]) -> None:
    """More shards by an upgrade, and fewer by a rollback."""
    release = (RELEASE, "--namespace", SYSTEM)
    waiting = ("--wait", "--timeout", "180s")

    def are_shared() -> bool:
        return sorted(holders(bed, 2)) == sorted(replicas(bed))

    with undisturbed(*sessions):
        bed.helm(
            *("upgrade", release[0], str(CHART), *release[1:]),
            *("--reuse-values", "--set", "shards=2", *waiting),
        )
        wait_for("each replica to hold a shard", are_shared, TAKEOVER)
        for session in sessions:
            served(session)
        bed.helm("rollback", *release, *waiting)
        assert leader(bed) in replicas(bed)
        for session in sessions:
            served(session)


def test_the_node_of_the_leader_loses_power(
    bed: Testbed, sessions: list[Session], embedded_cluster: Cluster
) -> None:
    one, two = sessions
    occupied = one.status["nodeName"]

    def is_apart() -> bool:
        return bool(replicas(bed)[leader(bed)]["spec"]["nodeName"] != occupied)

    rolled_out(bed)
    if not is_apart():
        delete_leader(bed)
        wait_for("the replica on the other node to act", is_apart, TAKEOVER)
    before = leader(bed)
    [node] = [node for node in embedded_cluster.nodes if node.name != occupied]
    with undisturbed(one):
        node.power_off()
        try:
            replaced(two)
            assert leader(bed) != before
        finally:
            node.power_on()
            embedded_cluster.wait_ready(node)
    rolled_out(bed)
