"""A damaged profile: its login comes back from the last good snapshot, and nothing is deleted."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import plyvel
import pytest
from integration.pod.conftest import Pod
from support.standin import Phone, Running, running
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Reason
from wasession_pod.volume.leveldb import HEADER, WHOLE

ACCOUNT, FRIEND = "15551234567", "15550001111"
LOCAL_STORAGE = "Default/Local Storage/leveldb"
INDEXED_DB = "Default/IndexedDB/*.leveldb"
Damage = Callable[[Path], object]


@dataclass
class Login:
    """A volume with a login and a snapshot of it, and the world that has the login."""

    world: Running
    phone: Phone
    template: Path

    def pod(self, directory: Path, **settings: str) -> Pod:
        return Pod(self.world.url, directory, **settings)


@pytest.fixture(scope="module")
async def login(tmp_path_factory: pytest.TempPathFactory, chromium: Path) -> AsyncIterator[Login]:
    template = tmp_path_factory.mktemp("damage") / "template"
    template.mkdir()
    async with running() as world:
        login = Login(world, Phone(world.url), template)
        pod = login.pod(template)
        await pod.start()
        await login.phone.scan(await pod.qr(), ACCOUNT)
        await pod.ready()
        # Enough for LevelDB to have tables besides its log.
        for number in range(90):
            await pod.call(
                "POST", "/v1/messages", 201, json={"to": FRIEND, "text": f"{number}" * 20_000}
            )
        await pod.terminate()
        assert any((template / "session-sales").glob(f"{INDEXED_DB}/*.ldb"))
        assert any((template / "snapshots").rglob("*.ldb"))
        yield login


@pytest.fixture
async def start(login: Login, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Pod]]]:
    """Start a pod on a damaged copy of the volume."""
    pods = []

    async def begin(*damages: tuple[str, Damage], **settings: str) -> Pod:
        directory = tmp_path / "data"
        if not directory.exists():
            shutil.copytree(login.template, directory, symlinks=True)
        for pattern, damage in damages:
            damage(max(directory.glob(pattern)))
        pod = login.pod(directory, **settings)
        await pod.start()
        pods.append(pod)
        return pod

    yield begin
    for pod in pods:
        await pod.kill()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))  # noqa: S311


def append_partial_record(path: Path) -> None:
    """Append a partial record, as a full volume or a power loss leaves it."""
    with path.open("ab") as log:
        log.write(HEADER.pack(0x12345678, 8000, WHOLE) + b"half of it")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_login(local_storage: Path) -> None:
    """Remove the login from an intact database: only the page can tell."""
    with plyvel.DB(str(local_storage)) as database:
        gone = [key for key, _ in database if b"last-wid-md" in key]
        for key in gone:
            database.delete(key)
    assert gone


def quarantined(pod: Pod) -> list[Path]:
    return sorted(pod.directory.glob("session-sales.damaged-*"))


async def gone(path: Path) -> None:
    async with asyncio.timeout(30):
        while await asyncio.to_thread(path.exists):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # polling


def warned(report: Report) -> str:
    [message] = [
        warning.message for warning in report.warnings if warning.reason == Reason.PROFILE_DAMAGED
    ]
    return message


@pytest.mark.parametrize(
    ("where", "file", "damage"),
    [
        (LOCAL_STORAGE, "CURRENT", Path.unlink),
        (LOCAL_STORAGE, "*.log", empty),
        (INDEXED_DB, "MANIFEST-*", Path.unlink),
        (INDEXED_DB, "*.ldb", garbage),
        (INDEXED_DB, "*.log", cut),
    ],
)
async def test_a_damaged_file_is_noticed_before_chromium_sees_it(
    start: Callable[..., Awaitable[Pod]], where: str, file: str, damage: Damage
) -> None:
    pod = await start((f"session-sales/{where}/{file}", damage))
    report = await pod.ready()
    assert report.session_valid
    assert report.restored
    assert "was restored from the snapshot of" in warned(report)
    [profile] = quarantined(pod)
    assert profile.name in warned(report)
    await gone(pod.directory / "repair.json")  # the pod removes it once it has reported Ready
    await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "still here"})
    assert await pod.terminate() == 0


async def test_data_written_after_a_partial_record_is_not_lost(
    start: Callable[..., Awaitable[Pod]],
) -> None:
    """Chromium appends to an existing log and does not read past a partial record in it."""
    logs = [f"session-sales/{where}/*.log" for where in (LOCAL_STORAGE, INDEXED_DB)]
    pod = await start(*((log, append_partial_record) for log in logs))
    assert (await pod.ready()).restored
    for number in range(3):
        await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": f"{number}"})
    await pod.kill()
    pod = await start()
    report = await pod.ready()
    assert report.restored
    assert report.warnings == []
    assert quarantined(pod) == []


async def test_a_missing_profile_comes_back(start: Callable[..., Awaitable[Pod]]) -> None:
    pod = await start(("session-sales", shutil.rmtree))
    report = await pod.ready()
    assert report.restored
    assert "there is no database" in warned(report)


async def test_a_login_that_only_the_page_misses_comes_back(
    start: Callable[..., Awaitable[Pod]],
) -> None:
    pod = await start((f"session-sales/{LOCAL_STORAGE}", without_login))
    seen = []
    async for report in pod.reports():
        seen.append(report.phase)
        assert report.session_valid
        if report.phase is Phase.READY:
            break
    assert Phase.AUTHENTICATING not in seen, "no QR as long as there is a snapshot to restore"
    assert report.restored
    assert "without the login" in warned(report)


async def test_when_the_snapshot_does_not_help_either_a_person_decides(
    start: Callable[..., Awaitable[Pod]], login: Login
) -> None:
    """An empty profile shows a QR; the login stays valid, since nothing has ended it."""
    pod = await start()
    await pod.ready()
    await pod.terminate()
    [snapshot] = (pod.directory / "snapshots").iterdir()
    pod = await start(
        (f"session-sales/{LOCAL_STORAGE}", without_login),
        (f"snapshots/{snapshot.name}/{LOCAL_STORAGE}/*.log", garbage),
    )
    report = await pod.until(lambda report: report.pairing is not None and report.pairing.available)
    assert (report.phase, report.reason) == (Phase.AUTHENTICATING, Reason.RESTORATION_FAILED)
    assert report.session_valid
    assert "a phone must be linked" in warned(report)
    assert len(quarantined(pod)) == 1
    # A restart repeats no attempt.
    await pod.kill()
    pod = await start()
    report = await pod.until(lambda report: report.pairing is not None and report.pairing.available)
    assert report.reason == Reason.RESTORATION_FAILED
    assert len(quarantined(pod)) == 1
    await login.phone.scan(await pod.qr(), ACCOUNT)
    report = await pod.ready()
    assert not report.restored
    assert not (pod.directory / "repair.json").exists()
    await pod.kill()
    pod = await start()
    assert (await pod.ready()).restored, "the new login was written before it was called Ready"


async def test_a_profile_that_chromium_does_not_start_on_gives_its_login_to_a_new_one(
    login: Login, start: Callable[..., Awaitable[Pod]], tmp_path: Path
) -> None:
    """The login is intact, so it moves to the new profile without a snapshot."""
    chromium = tmp_path / "chromium"
    profile = tmp_path / "data" / "session-sales"
    chromium.write_text(
        f'#!/bin/sh\ncase "$*" in *user-data-dir={profile}*)\n'
        f"[ -e {profile}/poison ] && exit 21;; esac\n"
        'exec /usr/bin/chromium "$@"\n'
    )
    chromium.chmod(0o755)
    shutil.copytree(login.template, tmp_path / "data", symlinks=True)
    shutil.rmtree(tmp_path / "data" / "snapshots")
    (profile / "poison").touch()
    pod = await start(chromium=str(chromium))
    report = await pod.ready()
    assert report.restored
    assert "Its login was moved to a new profile." in warned(report)
    [moved] = quarantined(pod)
    assert (moved / "poison").exists()
    assert not (profile / "poison").exists()


async def test_a_snapshot_taken_under_load_is_a_login(
    start: Callable[..., Awaitable[Pod]], login: Login, tmp_path: Path
) -> None:
    """The profile is destroyed during traffic, and its snapshot is complete."""
    shutil.copytree(login.template, tmp_path / "data", symlinks=True)
    pod = login.pod(tmp_path / "data", snapshot_interval="0.1")
    await pod.start()
    await pod.ready()
    before = set((pod.directory / "snapshots").iterdir())

    async def talk() -> None:
        while True:
            await login.phone.send(FRIEND, to=ACCOUNT, text="x" * 5000)
            await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "y" * 5000})

    talking = asyncio.create_task(talk())
    try:
        async with asyncio.timeout(60):
            for _ in range(3):  # from one snapshot to the next
                while before >= {
                    path
                    for path in (pod.directory / "snapshots").iterdir()
                    if path.name.endswith("Z")
                }:
                    assert not talking.done()
                    await asyncio.sleep(0.05)
                before |= set((pod.directory / "snapshots").iterdir())
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    await pod.kill()
    shutil.rmtree(pod.directory / "session-sales")
    pod = await start()
    report = await pod.ready()
    assert report.restored
    await pod.call("POST", "/v1/messages", 201, json={"to": FRIEND, "text": "after"})
