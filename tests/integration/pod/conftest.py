"""Run the session pod as a process, with a real Chromium, against the stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import psutil
import pytest
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT
from support.standin import Phone, running
from support.standin.server import Running
from wasession_api.session_pod.report import Report
from wasession_pod.api.operations import api_document
from wasession_pod.browser import processes

TOKEN = "token-of-the-tests"


@dataclass(frozen=True)
class Event:
    """One server-sent event; the state has no ID while the reader's position is not known."""

    id: str | None
    kind: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def assert_documented(method: str, path: str, answer: Answer) -> None:
    """Check a response against ``/openapi.json``: status, media type, headers and body."""
    [operations] = [
        operations
        for template, operations in api_document()["paths"].items()
        if _matches(template, path)
    ]
    operation = operations[method.lower()]
    documented = operation["responses"][str(answer.status)]
    media_type = answer.headers["Content-Type"].partition(";")[0]
    schema = documented["content"][media_type]["schema"]
    if media_type.endswith("json"):
        jsonschema_rs.validate(
            schema | {"components": api_document()["components"]},
            answer.json,
            validate_formats=True,
        )


def _matches(template: str, path: str) -> bool:
    parts, given = template.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        part in (value, "{id}") for part, value in zip(parts, given, strict=True)
    )


async def _events(lines: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in lines:
        name, colon, value = line.decode().rstrip("\n").partition(": ")
        if name and colon:
            fields[name] = value
        elif fields.keys() >= {"event", "data"}:
            yield Event(fields.get("id"), fields["event"], fields["data"])
            fields = {}


class Pod:
    """One run of ``python -m wasession_pod`` on a data directory."""

    def __init__(self, url: str, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.base = f"http://127.0.0.1:{(port := unused_port())}"
        names = {
            "client_id": "sales",
            "token": TOKEN,
            "data_dir": str(directory),
            "whatsapp_url": url,
            "port": str(port),
        }
        names |= {"host": "127.0.0.1", "reconnect_initial_delay": "0.2", **settings}
        self._environment = os.environ | {
            f"WASESSION_{name.upper()}": value for name, value in names.items()
        }
        self.process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        arguments = [*ENDS_WITH_PARENT, sys.executable, "-m", "wasession_pod"]
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *arguments, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    async def terminate(self) -> int:
        """Send SIGTERM, as kubelet does, and return the exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        await self._close()
        return await self.process.wait()

    async def kill(self) -> None:
        """Send SIGKILL to all processes, as when the container's PID 1 is killed."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            family = [root, *root.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family, timeout=10)
        await self.process.wait()
        await self._close()

    def process_of(self, kind: str) -> psutil.Process:
        """Return one of the pod's processes by its kind: driver, browser, renderer and so on."""
        return next(process for process in self.family() if processes.kind(process) == kind)

    def family(self) -> list[psutil.Process]:
        """Return all processes that the pod has started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    async def metric(self, name: str) -> float:
        """Return the value of a metric by its name with labels."""
        assert self._http is not None
        async with self._http.get(self.base + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name + " "))

    async def _close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Return the response's JSON after checking its status."""
        answer = await self.answer(method, path, **options)
        assert answer.status == status, answer.body
        return answer.json

    async def until(
        self, condition: Callable[[Report], bool | None], timeout: float = 40
    ) -> Report:
        """Return the first report of the event stream that meets the condition."""
        seen = []
        try:
            async with asyncio.timeout(timeout):
                async for report in self.reports():
                    seen.append(f"{report.phase}/{report.reason}/{report.auth_state}")
                    if condition(report):
                        return report
        except TimeoutError:
            pytest.fail(f"not within {timeout} s; seen: {seen}")
        raise AssertionError(f"the stream ended; seen: {seen}")

    async def reports(self) -> AsyncIterator[Report]:
        while True:
            try:
                async with self.stream("state") as events:
                    async for event in events:
                        yield Report.model_validate_json(event.data)
                return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def stream(
        self, types: str | None = None, last_event_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Yield the event stream, resumed after ``last_event_id``."""
        query = {"types": types} if types is not None else {}
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        timeout = aiohttp.ClientTimeout(None, sock_read=60)
        async with self.http.get(
            self.base + "/v1/events", params=query, headers=headers, timeout=timeout
        ) as answer:
            assert answer.status == 200, await answer.text()
            yield _events(answer.content)

    async def answer(self, method: str, path: str, **options: Any) -> Answer:
        """Return a response after checking it against the OpenAPI document."""
        async with self.http.request(method, self.base + path, **options) as answer:
            response = Answer(answer.status, answer.headers, await answer.read())
        assert_documented(method, path.partition("?")[0], response)
        return response

    @property
    def uploads(self) -> list[Path]:
        """Uploads that still exist."""
        assert self.process is not None
        paths = Path(tempfile.gettempdir()).glob(f"wasession-uploads-{self.process.pid}-*/*")
        return [path for path in paths if path.is_dir()]

    @property
    def log(self) -> str:
        return (self.directory.parent / f"{self.directory.name}.log").read_text()

    async def ready(self) -> Report:
        return await self.until(lambda report: report.phase == "Ready")

    async def qr(self) -> str:
        await self.until(lambda report: report.pairing is not None and report.pairing.available)
        code: str = (await self.call("GET", "/v1/pairing"))["code"]
        return code


@contextlib.asynccontextmanager
async def one_pod(url: str, directory: Path, **settings: str) -> AsyncIterator[Pod]:
    pod = Pod(url, directory / "data", **settings)
    pod.directory.mkdir()
    await pod.start()
    try:
        yield pod
    finally:
        await pod.kill()


@dataclass(frozen=True)
class Linked:
    """A Ready pod with its account's phone."""

    pod: Pod
    phone: Phone


@pytest.fixture(scope="module")
async def linked(tmp_path_factory: pytest.TempPathFactory, chromium: Path) -> AsyncIterator[Linked]:
    """Share one pod between the tests of a module: each writes to its own contact."""
    directory = tmp_path_factory.mktemp("linked")
    async with (
        running() as world,
        one_pod(world.url, directory, maximum_media_bytes=str(20 * 2**20), live_view="true") as pod,
    ):
        phone = Phone(world.url)
        await phone.scan(await pod.qr())
        await pod.ready()
        yield Linked(pod, phone)


@pytest.fixture(scope="module")
async def waiting(tmp_path_factory: pytest.TempPathFactory, chromium: Path) -> AsyncIterator[Pod]:
    """Yield a pod that waits for a phone."""
    directory = tmp_path_factory.mktemp("waiting")
    async with running() as world, one_pod(world.url, directory, live_view="true") as pod:
        await pod.qr()
        yield pod


@pytest.fixture(scope="module")
async def cut_off(tmp_path_factory: pytest.TempPathFactory, chromium: Path) -> AsyncIterator[Pod]:
    """Yield a pod that cannot reach WhatsApp and so is never Ready."""
    async with one_pod("http://127.0.0.1:9", tmp_path_factory.mktemp("cut-off")) as pod:
        await pod.until(lambda report: report.reason == "WhatsAppUnreachable")
        yield pod


@pytest.fixture
async def world() -> AsyncIterator[Running]:
    async with running() as world:
        yield world


@pytest.fixture
def phone(world: Running) -> Phone:
    return Phone(world.url)


@pytest.fixture
async def start(
    world: Running, tmp_path: Path, chromium: Path
) -> AsyncIterator[Callable[..., Any]]:
    """Start session pods; kill at the end of the test."""
    pods: list[Pod] = []

    async def begin(directory: str = "data", url: str | None = None, **settings: str) -> Pod:
        pod = Pod(url or world.url, tmp_path / directory, **settings)
        pod.directory.mkdir(exist_ok=True)
        await pod.start()
        pods.append(pod)
        return pod

    yield begin
    await asyncio.gather(*(pod.kill() for pod in pods))
