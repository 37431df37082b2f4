"""The server without a browser: its state, what expires, what it refuses, the program."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loopback import unused_port
from support.standin import Phone, PhoneError, Running, World
from support.standin.chat import Logins
from support.standin.offers import Offers, Refused
from support.standin.world import Behaviour, Faults, LastingFault, Message

TESTS = Path(__file__).parents[2]
ME = "15551234567"
FRIEND = "15550001111"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakePage:
    """A page as its bare socket: enough to link a device and to be owed something."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, noise: str = "bm9pc2U=") -> None:
        self.ws, self.noise = ws, noise

    async def say(self, kind: str, **fields: object) -> None:
        await self.ws.send_str(json.dumps({"t": kind, **fields}))

    async def hear(self, kind: str) -> dict[str, object]:
        """The next message of a kind."""
        async for message in self.ws:
            said: dict[str, object] = json.loads(message.data)
            if said["t"] == kind:
                return said
        raise AssertionError(f"closed without {kind}")


async def link(url: str, noise: str = "bm9pc2U=", number: str = ME) -> str:
    """Links a device without a browser; returns its id."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/ws/chat") as ws:
        page = FakePage(ws, noise)
        await page.say("hello", noise=noise)
        refs = (await page.hear("refs"))["refs"]
        assert isinstance(refs, list)
        scan = asyncio.create_task(Phone(url).scan(f"{refs[0]},{noise},identity,secret", number))
        await page.hear("pair-success")
        await page.say("pair-confirm")
        assert (await page.hear("stream-error"))["code"] == 515
        return await scan


def message(message_id: str, text: str = "hello") -> Message:
    return Message(
        id=message_id,
        sender=f"{ME}@c.us",
        to=f"{FRIEND}@c.us",
        text=text,
        at=1,
        device=f"{ME}:1@c.us",
    )


def test_state_is_read_back_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    world = World(file)
    device = world.new_device(ME, "noise")
    world.link(device)
    assert world.deliver(message("A"))
    world.owe(device.id, {"t": "receipt", "id": "A", "ack": 2})
    group = world.add_group("Choir")
    again = World(file)
    assert again.state == world.state
    assert again.devices_of(ME) == [device]
    assert again.exists(group)
    assert not again.deliver(message("A", "again")), "an id is delivered once, also after a restart"
    again.unlink(device.id)
    assert World(file).owed(device.id) == []
    assert list(tmp_path.iterdir()) == [file], "nothing half written is left behind"


def test_device_ids_are_never_used_twice(tmp_path: Path) -> None:
    world = World(tmp_path / "state.json")
    first = world.new_device(ME, "noise")
    world.link(first)
    world.unlink(first.id)
    assert World(tmp_path / "state.json").new_device(ME, "noise").id != first.id


@given(acks=st.lists(st.integers(1, 3), max_size=8))
def test_acks_only_rise(acks: list[int]) -> None:
    world = World()
    world.deliver(message("A"))
    for number, ack in enumerate(acks):
        changed = world.acknowledge("A", ack) is not None
        assert changed == (ack > max([1, *acks[:number]]))
    assert world.state.messages["A"].ack == max([1, *acks])


@given(
    started=st.dictionaries(st.sampled_from([None, ME, FRIEND]), st.floats(1, 100), max_size=3),
    passed=st.floats(0, 120),
)
def test_faults_end_and_meet_only_their_account(
    started: dict[str | None, float], passed: float
) -> None:
    clock = Clock()
    faults = Faults(clock)
    kind: LastingFault = "refuse"
    for phone, seconds in started.items():
        faults.start(kind, phone, seconds)
    clock.now += passed
    expected = max(started.get(ME, 0), started.get(None, 0)) > passed
    assert (faults.left(kind, ME) > 0) == expected
    assert not faults.left("banned", ME)
    faults.clear()
    assert not faults.left(kind, ME)


def test_each_qr_expires_when_the_page_has_gone_on_to_the_next() -> None:
    clock = Clock()
    offers: Offers[str] = Offers(clock)
    first, second, *_ = offers.new_refs("page", "noise", Behaviour())
    clock.now += 62
    with pytest.raises(Refused, match="expired"):
        offers.by_qr(f"{first},noise,identity,secret")
    assert offers.by_qr(f"{second},noise,identity,secret,CHROME").page == "page"
    offers.new_refs("page", "noise", Behaviour())
    with pytest.raises(Refused):
        offers.by_qr(f"{second},noise,identity,secret")


def test_page_that_is_gone_offers_nothing() -> None:
    offers: Offers[str] = Offers()
    [ref, *_] = offers.new_refs("page", "noise", Behaviour())
    code = offers.new_code("page", "noise", ME, Behaviour())
    offers.await_passkey(ME, offers.by_qr(f"{ref},noise,identity,secret"))
    offers.forget("page")
    with pytest.raises(Refused):
        offers.by_qr(f"{ref},noise,identity,secret")
    with pytest.raises(Refused):
        offers.by_code(ME, code)
    with pytest.raises(Refused):
        offers.by_passkey(ME)


def test_pairing_code_works_once_and_only_the_last_one() -> None:
    offers: Offers[str] = Offers()
    old = offers.new_code("page", "noise", ME, Behaviour())
    new = offers.new_code("page", "noise", ME, Behaviour())
    assert re.fullmatch("[1-9A-HJ-NP-TV-Z]{8}", new)
    with pytest.raises(Refused):
        offers.by_code(ME, old)
    assert offers.by_code(ME, new.lower()).page == "page"
    with pytest.raises(Refused):
        offers.by_code(ME, new)


async def test_login_with_another_noise_key_is_refused(world: Running) -> None:
    device = await link(world.url)
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{world.url}/ws/chat") as ws:
        page = FakePage(ws)
        await page.say("hello", noise="b3RoZXI=", me={"device": device})
        assert (await page.hear("failure"))["reason"] == 401


async def test_device_gets_what_it_missed_until_it_confirms(world: Running) -> None:
    device = await link(world.url)
    phone = Phone(world.url)
    received = await phone.send(FRIEND, ME, "hello")
    for confirmed in (False, True):
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{world.url}/ws/chat") as ws:
            page = FakePage(ws)
            await page.say("hello", noise=page.noise, me={"device": device})
            stanza = await page.hear("stanza")
            assert isinstance(stanza["body"], dict)
            assert stanza["body"]["id"] == received
            if confirmed:
                await page.say("got", number=stanza["number"])
                await page.say("call", id=1, args={"op": "query-exists", "wid": f"{FRIEND}@c.us"})
                await page.hear("result")
    assert world.world.owed(device) == []
    assert (await phone.message(received)).ack == 2


async def test_page_that_speaks_nonsense_is_hung_up_on(world: Running) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{world.url}/ws/chat") as ws:
        await ws.send_str('{"t": "hello"}')
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1008


async def test_control_api_says_what_is_wrong(world: Running, phone: Phone) -> None:
    for path, body in (
        ("/phone/scan", {"qr": "2@x", "phone": "not a number"}),
        ("/phone/send", {"from": FRIEND, "to": ME}),
        ("/server/fault", {"kind": "earthquake"}),
    ):
        async with (
            aiohttp.ClientSession() as http,
            http.post(world.url + path, json=body) as answer,
        ):
            assert (answer.status, answer.content_type) == (400, "application/problem+json")
    with pytest.raises(PhoneError, match="no such message") as error:
        await phone.message("nothing")
    assert error.value.status == 404
    with pytest.raises(PhoneError):
        await phone.behave(nonsense=1)
    with pytest.raises(PhoneError, match="no such group"):
        await phone.send(FRIEND, ME, "hello", group="1@g.us")


async def test_it_counts_offers_links_and_pages_that_are_replaced_alive(
    world: Running, phone: Phone
) -> None:
    device = await link(world.url)
    assert await phone.logins() == Logins(offers=1, links=1)

    async with aiohttp.ClientSession() as http:

        async def log_in() -> FakePage:
            page = FakePage(await http.ws_connect(f"{world.url}/ws/chat"))
            await page.say("hello", noise=page.noise, me={"device": device})
            await page.hear("success")
            return page

        left = await log_in()
        await left.ws.close()
        alive = await log_in()
        assert (await phone.logins()).overlaps == 0, "nobody was there any more"
        await log_in()
        await alive.hear("replaced")
        await alive.ws.receive()  # the server hangs up, and this answers
        async with asyncio.timeout(10):
            while (await phone.logins()).overlaps == 0:  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.01)
        assert await phone.logins() == Logins(offers=1, links=1, overlaps=1)


async def test_waiting_for_messages_ends_when_none_comes(phone: Phone) -> None:
    with pytest.raises(TimeoutError):
        await phone.wait_messages(1, timeout=0.01)


async def test_program_keeps_its_state_over_a_kill_and_costs_nothing_idle(tmp_path: Path) -> None:
    port = unused_port()
    command = [
        sys.executable,
        "-m",
        "support.standin",
        "--port",
        str(port),
        "--state",
        str(tmp_path / "state.json"),
    ]
    url = f"http://localhost:{port}"
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1"}

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert url in (await process.stdout.readline()).decode()
        return process

    process = await start()
    device = await link(url)
    before = psutil.Process(process.pid).cpu_times()
    await asyncio.sleep(0.5)  # the time over which idleness is measured
    after = psutil.Process(process.pid).cpu_times()
    assert (after.user + after.system) - (before.user + before.system) <= 0.02
    process.kill()
    await process.wait()
    process = await start()
    assert [linked.id for linked in await Phone(url).devices(ME)] == [device]
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
