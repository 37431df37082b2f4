"""Statuses are written once, and not again for what the API server does not keep."""

from __future__ import annotations

from typing import Any, cast

from unit.operator.situations import NOW, SETTINGS, VALID, facts, report, session
from wasession_api.kube.client import KubeClient
from wasession_operator.plan import Plan, plan
from wasession_operator.reconcile_state import Memory
from wasession_operator.status_writer import Statuses

Manifest = dict[str, Any]


class Api:
    """An API server that has one session, and prunes a field that its CRD does not know."""

    def __init__(self, unknown: str | None = None) -> None:
        self.body: Manifest = {
            "metadata": {"name": "sales", "namespace": "ns", "resourceVersion": "1"},
            "status": {},
        }
        self.patches: list[Manifest] = []
        self.events: list[Manifest] = []
        self.unknown = unknown

    async def create(self, _resource: Any, manifest: Manifest) -> Manifest:
        self.events.append(manifest)
        return manifest

    async def patch(
        self, _resource: Any, _namespace: str, _name: str, patch: Manifest, _sub: str
    ) -> Manifest:
        self.patches.append(patch)
        status = {**self.body["status"], **patch["status"]}
        status = {
            name: value
            for name, value in status.items()
            if value is not None and name != self.unknown
        }
        if status != self.body["status"]:
            version = str(int(self.body["metadata"]["resourceVersion"]) + 1)
            self.body = {
                "metadata": {**self.body["metadata"], "resourceVersion": version},
                "status": status,
            }
        return self.body


async def write(api: Api, memory: Memory, result: Plan) -> float | None:
    """As ``reconcile`` does it, with a watch that is not behind."""
    memory.seen(api.body["metadata"]["resourceVersion"])
    statuses = Statuses(cast(KubeClient, api))
    wait = await statuses.write(session(VALID), api.body, memory, result, None)
    await statuses.close()
    return wait


def ready(**fields: Any) -> Plan:
    said = report(session_valid=True, is_authenticated=True, last_connected=NOW, **fields)
    return plan(session(VALID), facts(report=said), SETTINGS)


async def test_the_same_is_written_once() -> None:
    api, memory = Api(), Memory("uid-1")
    for _ in range(3):
        assert await write(api, memory, ready()) is None
    assert len(api.patches) == 1
    [event] = api.events
    assert (event["reason"], event["type"], event["involvedObject"]["uid"]) == (
        "Connected",
        "Normal",
        "uid-1",
    )


async def test_what_follows_at_once_waits_a_little() -> None:
    api, memory = Api(), Memory("uid-1")
    await write(api, memory, ready())
    wait = await write(api, memory, ready(whatsapp_web_version="2.3"))
    assert wait is not None
    assert 0 < wait <= 1
    assert memory.differs_since is not None
    memory.differs_since -= 1
    memory.written_at -= 1
    assert await write(api, memory, ready(whatsapp_web_version="2.3")) is None
    assert api.patches[1] == {"status": {"whatsappWebVersion": "2.3"}}


async def test_a_crd_that_is_too_old_does_not_make_it_write_for_ever() -> None:
    api, memory = Api(unknown="pvcUID"), Memory("uid-1")
    for _ in range(5):
        await write(api, memory, ready())
        memory.written_at -= 1
    assert len(api.patches) == 2, "once to write it, once to see that the field is not kept"
    assert [event["reason"] for event in api.events] == ["Connected"]
