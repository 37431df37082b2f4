"""A whole run, with sessions that only pretend: what is asked of whom, and what counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from support.fakes.api import Api, Manifest
from support.standin.client import LinkedDevice
from support.standin.world import Message

from bench.hibernation import load, measures
from bench.hibernation.load import Load, account
from bench.hibernation.measures import Bench
from bench.hibernation.results import Run
from bench.hibernation.stage import Answer, Stage
from bench.operator.audit import Audit

AWAKE = 0.05  # seconds after which a session sleeps


class World:
    """The cluster, the gateway and the phone of some sessions, which sleep soon."""

    def __init__(self) -> None:
        self.audit, self.volumes = Audit(Path("/nowhere")), Path("/nowhere")
        self.api = cast(Api, self)
        self.deaf: set[str] = set()  # sessions that no text wakes
        self.forgetful: set[str] = set()  # that ask for a phone when they wake
        self.mute: set[str] = set()  # whose texts get lost
        self.unlinkable: set[str] = set()
        self._status = dict[str, dict[str, Any]]()
        self._events = asyncio.Queue[Manifest]()
        self._messages = list[Message]()
        self._devices = dict[str, LinkedDevice]()
        self._tasks = set[asyncio.Task[None]]()
        self.asked_awake = list[str]()  # who got a text without being asleep

    # --- the API server ---------------------------------------------------------------------------

    async def list(self, plural: str, namespace: str | None = None) -> Manifest:
        return {"metadata": {"resourceVersion": "0"}, "items": []}

    async def watch(self, plural: str, version: str) -> AsyncIterator[Manifest]:
        while True:
            yield await self._events.get()

    def report(self, name: str, phase: str, **more: Any) -> None:
        status = self._status[name] = self._status.get(name, {}) | {"phase": phase} | more
        metadata = {"name": name, "uid": name}
        self._events.put_nowait(
            {"type": "MODIFIED", "object": {"metadata": metadata, "status": dict(status)}}
        )

    def become_ready(self, name: str) -> None:
        restorations = self._status[name].get("restorations", -1) + 1
        self.report(name, "Ready", podName=f"wasession-{name}", restorations=restorations)
        task = asyncio.create_task(self._sleep(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sleep(self, name: str) -> None:
        await asyncio.sleep(AWAKE)
        self.report(name, "Hibernated", podName=None)

    # --- what a run uses --------------------------------------------------------------------------

    async def create(self, name: str) -> None:
        pairing = {"available": True, "method": "QRCode", "attempt": 1}
        phase = "Failed" if name in self.unlinkable else "Authenticating"
        self.report(name, phase, podName=f"wasession-{name}", pairing=pairing)

    async def link_code(self, name: str) -> str | None:
        return name

    async def send(self, name: str, to: str, text: str) -> Answer:
        if self._status[name]["phase"] != "Hibernated":
            self.asked_awake.append(name)
        if name in self.deaf:
            return Answer(503, 0.01, {"title": "Waking"}, "Waking")
        if name in self.forgetful:
            self.report(name, "Authenticating")
        self.become_ready(name)
        if name not in self.mute:
            message = {"id": text, "from": f"{account(name)}@c.us", "to": to, "text": text, "at": 1}
            self._messages.append(Message.model_validate(message))
        return Answer(200, 0.01, {"id": text})

    @contextlib.asynccontextmanager
    async def phone(self) -> AsyncIterator[World]:
        yield self

    async def scan(self, code: str, phone: str) -> str:
        self._devices[code] = LinkedDevice(id=code, phone=phone, online=True, available=None)
        self.become_ready(code)
        return code

    async def messages(self) -> Sequence[Message]:
        return self._messages

    async def devices(self) -> Sequence[LinkedDevice]:
        return [*self._devices.values()]

    def log_out(self, name: str) -> None:
        del self._devices[name]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "TIME_AWAKE", 0.2)
    monkeypatch.setattr(measures, "SETTLED", 0.2)
    monkeypatch.setattr(measures, "DELIVERED", 0.1)
    monkeypatch.setattr(measures, "POLL", 0.01)
    monkeypatch.setattr(measures, "PATIENCE", 1.0)
    monkeypatch.setattr(measures, "AFTER_IDLE", 1.0)


async def measured(world: World, sessions: int = 6) -> Run:
    some = Load(sessions=sessions, awake=2, minutes=0.005)
    run = Run(
        conditions={},
        seed=1,
        sessions=sessions,
        awake=2,
        minutes=some.minutes,
        ramp=some.ramp,
        interval=some.interval,
    )
    saved = list[str]()
    bench = Bench(cast(Stage, world), some, run, lambda run: saved.append(run.model_dump_json()))
    await bench.measure()
    assert len(saved) >= len(run.links) + len(run.wakes) + len(run.checks)
    assert saved[-1] == run.model_dump_json()
    return run


async def test_all_goes_well() -> None:
    world = World()
    run = await measured(world)
    assert run.finished
    assert run.linked == 6
    assert len(run.wakes) + run.nobody_slept == 5  # 0.5 s, one each 0.1 s
    assert run.wakes
    assert all(wake.good for wake in [*run.wakes, *run.checks]), run
    assert len(run.checks) == 1
    assert run.logged_out == []
    assert world.asked_awake == []


async def test_what_does_not_wake_is_a_result() -> None:
    world = World()
    world.deaf |= {"s-0001", "s-0002"}
    run = await measured(world, sessions=2)
    assert run.finished
    assert {(wake.status, wake.problem, wake.restored) for wake in run.wakes} == {
        (503, "Waking", False)
    }
    assert not any(wake.good for wake in run.wakes)


async def test_a_login_with_a_code_is_no_restoration() -> None:
    world = World()
    world.forgetful.add("s-0001")
    run = await measured(world, sessions=1)
    assert run.wakes
    assert all(wake.answered and wake.delivered and not wake.restored for wake in run.wakes)


async def test_a_text_that_nobody_got_is_not_delivered() -> None:
    world = World()
    world.mute.add("s-0001")
    run = await measured(world, sessions=1)
    assert run.wakes
    assert all(wake.answered and wake.restored and not wake.delivered for wake in run.wakes)


async def test_a_session_that_cannot_be_linked_gets_no_text() -> None:
    world = World()
    world.unlinkable.add("s-0002")
    run = await measured(world, sessions=2)
    [broken] = [link for link in run.links if link.seconds is None]
    assert (broken.session, broken.problem) == ("s-0002", "TimeoutError while Failed")
    assert {wake.session for wake in run.wakes} == {"s-0001"}


async def test_who_was_logged_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    check = Bench.check

    async def check_later(bench: Bench) -> None:
        world.log_out("s-0001")
        await check(bench)

    monkeypatch.setattr(Bench, "check", check_later)
    assert (await measured(world, sessions=2)).logged_out == ["s-0001"]
