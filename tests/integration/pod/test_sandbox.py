"""The session pod confined as by the operator, with Chromium's sandbox where available."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from integration.pod import container
from integration.pod.conftest import TOKEN, Pod
from support.standin import Phone
from support.standin.server import Running
from wasession_api.v1alpha1 import Phase, Reason
from wasession_pod.browser.launch import sandbox_available

PROFILE: dict[str, Any] = json.loads(container.SECCOMP.read_text())
Contained = Callable[..., Awaitable[Pod]]
OPENSHIFT_USER = 1000660000  # as drawn for a namespace; no entry in /etc/passwd


class ContainedPod(Pod):
    """A pod in a container without privileges."""

    def __init__(
        self, url: str, directory: Path, seccomp: dict[str, Any], user: int, group: int
    ) -> None:
        super().__init__(url, directory)
        self._seccomp, self._user, self._group = seccomp, user, group
        self.arguments: list[str] = []

    async def start(self) -> None:
        names = ("CLIENT_ID", "TOKEN", "DATA_DIR", "WHATSAPP_URL", "PORT", "HOST")
        environment = {
            f"WASESSION_{name}": self._environment[f"WASESSION_{name}"] for name in names
        }
        environment |= {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.arguments = container.command(
            self.directory, environment, self._seccomp, self._user, self._group
        )
        log = (self.directory.parent / f"{self.directory.name}.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *self.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a volume that another user can reach; pytest's directories are private."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == getpass.getuser() and directory != Path.home():
            directory.chmod(directory.stat().st_mode | 0o111)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
async def contained(world: Running, data: Path, chromium: Path) -> AsyncIterator[Contained]:
    pods: list[ContainedPod] = []

    async def begin(
        seccomp: dict[str, Any] = PROFILE, user: int = container.USER, group: int = container.USER
    ) -> Pod:
        pod = ContainedPod(world.url, data, seccomp, user, group)
        pods.append(pod)
        await pod.start()
        return pod

    yield begin
    for pod in pods:
        await pod.kill()
        container.end(pod.arguments)


def processes(pod: Pod) -> list[psutil.Process]:
    assert pod.process is not None
    return [
        process
        for process in psutil.Process(pod.process.pid).children(recursive=True)
        if process.name() != "runc"
    ]


def status(process: psutil.Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def namespace(process: psutil.Process, kind: str) -> str:
    return str(Path(f"/proc/{process.pid}/ns/{kind}").readlink())


def renderer(pod: Pod) -> psutil.Process:
    return next(process for process in processes(pod) if "--type=renderer" in process.cmdline())


async def test_ready_without_any_privilege_and_with_chromiums_sandbox(
    contained: Contained, phone: Phone
) -> None:
    pod = await contained(PROFILE)
    await phone.scan(await pod.qr())
    report = await pod.ready()
    assert report.sandboxed
    assert "wasession_pod_sandboxed 1.0" in await metrics(pod)
    main = next(process for process in processes(pod) if "wasession_pod" in process.cmdline())
    for process in processes(pod):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            fields = status(process)
            assert fields["Uid"].split() == ["10001"] * 4
            assert fields["NoNewPrivs"] == "1"
            assert fields["Seccomp"] == "2"
    assert {status(main)[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "0000000000000000"
    }
    # Chromium's sandbox: namespaces of its own, and more filters than the container's.
    page = renderer(pod)
    for kind in ("user", "pid", "net"):
        assert namespace(page, kind) != namespace(main, kind)
    assert int(status(page)["Seccomp_filters"]) > int(status(main)["Seccomp_filters"])
    await pod.terminate()


async def test_without_user_namespaces_the_missing_sandbox_is_reported(
    contained: Contained, phone: Phone
) -> None:
    """The default profiles of containerd and Docker reserve namespaces for CAP_SYS_ADMIN."""
    new_namespaces = 0x7E020000
    rules = [rule for rule in PROFILE["syscalls"] if rule["names"] not in (["clone"], ["unshare"])]
    clone = {"index": 0, "value": new_namespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [clone]})
    pod = await contained({**PROFILE, "syscalls": rules})
    await phone.scan(await pod.qr())
    report = await pod.ready()
    assert report.sandboxed is False
    assert "wasession_pod_sandboxed 0.0" in await metrics(pod)
    main = next(process for process in processes(pod) if "wasession_pod" in process.cmdline())
    assert namespace(renderer(pod), "user") == namespace(main, "user")
    log = (pod.directory.parent / "data.log").read_text()
    assert "without its sandbox" in log


async def test_a_required_sandbox_is_not_done_without(
    start: Callable[..., Awaitable[Pod]], chromium: Path
) -> None:
    if sandbox_available():
        pytest.skip("the sandbox is available to this user")
    pod = await start(sandbox="Required")
    report = await pod.until(lambda report: report.reason == Reason.SANDBOX_UNAVAILABLE)
    assert (report.phase, report.sandboxed) == (Phase.FAILED, False)
    assert not any("--type=" in " ".join(process.cmdline()) for process in pod.family())


async def test_any_user_id_works_on_the_volume_of_another_one(
    contained: Contained, phone: Phone
) -> None:
    message: dict[str, Any] = {
        "json": {"to": "15550001111", "text": "hello"},
        "headers": {"Idempotency-Key": "once"},
    }
    pod = await contained()
    await phone.scan(await pod.qr())
    await pod.ready()
    sent = await pod.call("POST", "/v1/messages", 201, **message)
    await pod.terminate()
    pod = await contained(user=OPENSHIFT_USER, group=0)
    report = await pod.ready()
    assert report.restored
    for process in processes(pod):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            assert status(process)["Uid"].split() == [str(OPENSHIFT_USER)] * 4
    assert await pod.call("POST", "/v1/messages", 201, **message) == sent
    message["headers"] = {"Idempotency-Key": "twice"}
    assert await pod.call("POST", "/v1/messages", 201, **message) != sent
    await pod.terminate()
    pod = await contained()
    assert (await pod.ready()).restored
    await pod.terminate()


async def test_private_files_of_another_user_id_are_reported(
    contained: Contained, phone: Phone
) -> None:
    pod = await contained(user=OPENSHIFT_USER, group=0)
    await phone.scan(await pod.qr())
    await pod.ready()
    await pod.kill()  # Chromium's newest files are private
    pod = await contained()
    report = await pod.until(lambda report: report.reason == Reason.VOLUME_NOT_ACCESSIBLE)
    assert f"belongs to user {OPENSHIFT_USER}" in report.message
    await pod.terminate()
    pod = await contained(user=OPENSHIFT_USER, group=0)
    assert (await pod.ready()).restored
    await pod.terminate()


async def metrics(pod: Pod) -> str:
    async with aiohttp.ClientSession() as http, http.get(pod.base + "/metrics") as answer:
        return await answer.text()
