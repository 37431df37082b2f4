"""Link sessions, let them sleep, wake them with texts, and look at what all of it uses."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import aiohttp
from support.fakes.api import ApiError
from support.standin import PhoneError
from support.standin.world import Message
from wasession_api.v1alpha1 import Phase

from bench.density.node import MIB
from bench.hibernation import usage
from bench.hibernation.fleet import Fleet
from bench.hibernation.load import (
    AFTER_IDLE,
    Load,
    account,
    choose,
    choose_checked,
    logged_out,
    names,
)
from bench.hibernation.results import Link, Run, Sample, Wake
from bench.hibernation.stage import NAMESPACE, Stage
from bench.hibernation.usage import SESSIONS
from bench.operator.audit import by_kind

FRIEND = "15550001111"
PATIENCE = 600.0  # seconds that a session may take to be linked, or all to fall asleep
SETTLED = 60.0  # seconds after an answer in which the status must tell that the session is Ready
DELIVERED = 30.0  # seconds after an answer in which WhatsApp's server must have the text
POLL = 0.5  # seconds between two looks at what nobody reports
SAMPLE_INTERVAL = 10.0  # seconds
# For the moment; a timeout is an OSError.
UNREACHABLE = (ApiError, PhoneError, aiohttp.ClientError, OSError, RuntimeError)

Save = Callable[[Run], None]


class Bench:
    """One run; what it has measured is in ``run``, which is saved as it grows."""

    def __init__(self, stage: Stage, load: Load, run: Run, save: Save) -> None:
        self._stage, self._load, self._fleet = stage, load, Fleet()
        self.run, self._save = run, save
        self._chance = random.Random(run.seed)  # noqa: S311 - it shall be the same again
        self._devices: dict[str, str] = {}  # of the sessions that are linked
        self._busy: set[str] = set()  # sessions that get a text now
        self._numbers = iter(range(1, sys.maxsize))  # of texts
        self._began = 0.0

    async def measure(self) -> None:
        async with beside(self._fleet.follow(self._stage.api)):
            await self.link()
            await self.let_sleep()
            self._began = time.monotonic()
            self._stage.audit.new()  # what was written before
            async with beside(self._sample()):
                await self.wake_some()
            await self.check()
        self.run.finished = True
        self._save(self.run)

    # --- before -----------------------------------------------------------------------------------

    async def link(self) -> None:
        """Create sessions and link them, as many at a time as there are CPUs."""
        waiting = iter(names(self._load.sessions))

        async def work() -> None:
            for name in waiting:  # shared by all workers
                await self._fleet.until(self._may_link, PATIENCE)
                self.run.links.append(link := await self._link(name))
                self._save(self.run)
                say(f"{len(self.run.links)} of {self._load.sessions}: {link}")

        async with asyncio.TaskGroup() as group:
            for _ in range(os.cpu_count() or 1):
                group.create_task(work())

    def _may_link(self) -> bool:
        return self._fleet.awake(list(self._devices)) < self._load.most_while_linking

    async def _link(self, name: str) -> Link:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._stage.create(name)
                self._devices[name] = await self._scan(name)
                await self._wait(lambda: name in self._fleet.ready())
        except UNREACHABLE as error:
            problem = f"{type(error).__name__} while {self._fleet.status(name).phase}"
            return Link(session=name, seconds=None, problem=problem)
        return Link(session=name, seconds=round(time.monotonic() - began, 2))

    async def _scan(self, name: str) -> str:
        """Have the phone scan the session's code as soon as there is one; return the device."""

        def can_be_linked() -> bool:
            status = self._fleet.status(name)
            is_asked_for = status.phase is Phase.AUTHENTICATING
            return is_asked_for and status.pairing is not None and status.pairing.available

        while True:
            await self._wait(can_be_linked)
            code = await self._stage.link_code(name)
            try:
                if code is not None:
                    async with self._stage.phone() as phone:
                        return await phone.scan(code, account(name))
            except UNREACHABLE:  # or the code has expired: there is another one
                pass
            await asyncio.sleep(POLL)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        if not await self._fleet.until(condition, PATIENCE):
            raise TimeoutError

    async def let_sleep(self) -> None:
        """Wait until no more sessions are awake than there will be."""
        linked, awake = list(self._devices), self._load.awake
        if not await self._fleet.until(
            lambda: self._fleet.awake(linked) <= awake, AFTER_IDLE + PATIENCE
        ):
            say(f"{self._fleet.awake(linked)} sessions are still awake")

    # --- the load ---------------------------------------------------------------------------------

    async def wake_some(self) -> None:
        """Send a text to a session that sleeps, at each interval; return when all are answered."""
        begin, interval = self._began, self._load.interval
        async with asyncio.TaskGroup() as group:
            for number in range(round(self._load.seconds / interval)):
                await asyncio.sleep(max(0.0, begin + number * interval - time.monotonic()))
                name = choose(self._sleepers(), self._busy, self._chance)
                if name is None:
                    self.run.nobody_slept += 1
                else:
                    group.create_task(self._wake(name, self.run.wakes))
            # The last ones are awake for as long as the first ones were.
            await asyncio.sleep(max(0.0, begin + self._load.seconds - time.monotonic()))

    def _sleepers(self) -> list[str]:
        return [name for name in self._fleet.asleep() if name in self._devices]

    async def _wake(self, name: str, wakes: list[Wake]) -> None:
        self._busy.add(name)
        try:
            wakes.append(wake := await self._text(name))
            self._save(self.run)
            say(f"{wake}")
        finally:
            self._busy.discard(name)

    async def _text(self, name: str) -> Wake:
        """Send a text to a session, and follow what becomes of both."""
        before, codes = self._fleet.status(name).restorations, self._fleet.codes(name)
        text, at = f"text {next(self._numbers)}", time.monotonic() - self._began
        answer = await self._stage.send(name, FRIEND, text)

        def is_restored() -> bool:  # counted once it is Ready
            return self._fleet.status(name).restorations > before

        restored = await self._fleet.until(is_restored, SETTLED)
        return Wake(
            session=name,
            at=round(at, 1),
            seconds=round(answer.seconds, 3),
            status=answer.status,
            problem=answer.problem,
            delivered=await self._is_delivered(name, text),
            restored=restored and self._fleet.codes(name) == codes,
        )

    async def _is_delivered(self, name: str, text: str) -> bool:
        """Return whether WhatsApp's server has the text from this account, exactly once."""
        end = time.monotonic() + DELIVERED
        while True:
            found = [message for message in await self._messages() if message.text == text]
            if found or time.monotonic() > end:
                return [message.sender.partition("@")[0] for message in found] == [account(name)]
            await asyncio.sleep(POLL)

    async def _messages(self) -> list[Message]:
        try:
            async with self._stage.phone() as phone:
                return await phone.messages()
        except UNREACHABLE:
            return []

    # --- what it uses -----------------------------------------------------------------------------

    async def _sample(self) -> None:
        """Take samples, without end."""
        groups, at, cpu = usage.groups(), self._began, dict[str, float]()
        while True:
            try:
                pods = usage.pods((await self._stage.api.list("pods"))["items"])
            except UNREACHABLE as error:
                say(f"no sample: {type(error).__name__}")
            else:
                now, cpu_now = time.monotonic(), groups.cpu(pods)
                if cpu:
                    sample = self._look(groups, pods, usage.since(cpu, cpu_now))
                    sample.seconds = round(now - self._began, 1)
                    sample.interval = round(now - at, 1)
                    self.run.samples.append(sample)
                    self._save(self.run)
                at, cpu = now, cpu_now
            await asyncio.sleep(SAMPLE_INTERVAL)

    def _look(self, groups: usage.Groups, pods: list[usage.Pod], cpu: dict[str, float]) -> Sample:
        ready, others = self._fleet.ready(), Counter[str]()
        anonymous = shared = of_ready = readies = count = 0
        for pod in pods:
            memory = groups.memory(pod)
            if memory is None:
                continue
            if pod.component != SESSIONS:
                others[pod.component] += memory.total
                continue
            count += 1
            anonymous += memory.anonymous
            shared += memory.shared
            if pod.session in ready:
                readies += 1
                of_ready += memory.total
        writes = self._stage.audit.new()
        return Sample(
            seconds=0,
            interval=0,
            pods=count,
            ready=readies,
            anonymous_mib=mib(anonymous),
            shared_mib=mib(shared),
            ready_mib=mib(of_ready),
            others_mib={name: mib(size) for name, size in sorted(others.items())},
            cpu_seconds=cpu,
            writes=by_kind(writes),
            lease_writes=sum(write.resource == "leases" for write in writes),
        )

    # --- the end ----------------------------------------------------------------------------------

    async def check(self) -> None:
        """Find out whether anybody was logged out, and wake some that have slept all the time."""
        woken = {wake.session for wake in self.run.wakes}
        chosen = choose_checked(self._sleepers(), woken, self._load.checked, self._chance)
        for name in chosen:
            await self._wake(name, self.run.checks)
        self.run.logged_out = logged_out(self._devices, await self._linked_devices())
        self.run.phases = self._fleet.phases()
        volumes = await self._stage.api.list("persistentvolumes")
        self.run.volumes_mib = usage.volumes(volumes["items"], self._stage.volumes, NAMESPACE)

    async def _linked_devices(self) -> set[str]:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with self._stage.phone() as phone:
                        return {device.id for device in await phone.devices()}
                except UNREACHABLE:
                    await asyncio.sleep(POLL)


@asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do endless work until the end of the block, which its failure ends at once."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield
        task.cancel()


def mib(size: int) -> float:
    return round(size / MIB, 1)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
