"""WhatsApp Web behind a company's proxy that intercepts TLS with an authority of its own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from integration.pod.conftest import Pod
from support.certificate_authority import CertificateAuthority
from support.standin import Phone, running
from support.standin.server import Running
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase, Reason

Start = Callable[..., Awaitable[Pod]]


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
async def world(authority: CertificateAuthority, tmp_path: Path) -> AsyncIterator[Running]:
    context = authority.server_context(tmp_path, "localhost")
    async with running(tls=context) as world:
        yield world


def because(reason: Reason) -> Callable[[Report], bool]:
    return lambda report: report.reason == reason


def write(path: Path, content: bytes) -> str:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)
    return str(path)


async def test_ready_with_the_authority_of_the_bundle(
    start: Start, authority: CertificateAuthority, world: Running, tmp_path: Path
) -> None:
    others = b"".join(CertificateAuthority(f"Other authority {n}").pem for n in range(3))
    bundle = write(tmp_path / "ca.crt", others + authority.pem)
    pod = await start(ca_bundle=bundle)
    phone = Phone(world.url, ssl.create_default_context(cadata=authority.pem.decode()))
    await phone.scan(await pod.qr())
    report = await pod.ready()
    assert report.warnings == []
    home = Path(pod.process_of("browser").environ()["HOME"])
    assert home.name.startswith("wasession-home-"), "not the user's own"
    write(tmp_path / "ca.crt", authority.pem)
    report = await pod.until(lambda report: bool(report.warnings))
    assert [notice.reason for notice in report.warnings] == [Reason.CA_BUNDLE_CHANGED]
    assert report.phase is Phase.READY
    await pod.call("POST", "/v1/restart", 202)
    await pod.until(lambda report: not report.warnings and report.phase is Phase.READY)


async def test_without_the_bundle_the_message_says_what_to_do(start: Start, tmp_path: Path) -> None:
    pod = await start()
    report = await pod.until(because(Reason.CERTIFICATE_UNTRUSTED))
    assert "certificate" in report.message
    assert "CA bundle" in report.message
    home = pod.process_of("browser").environ()["HOME"]
    assert "wasession-home" not in home, "no home of its own where no bundle is configured"


async def test_an_invalid_bundle_is_waited_for(
    start: Start, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.crt"
    pod = await start(ca_bundle=str(bundle), reconnect_initial_delay="300")
    report = await pod.until(because(Reason.CA_BUNDLE_INVALID))
    assert report.phase is Phase.FAILED
    assert f"{bundle} does not exist" in report.message
    write(bundle, authority.pem[:200])
    await pod.until(lambda report: "ends within a certificate" in report.message)
    assert not any(_is_browser(process) for process in pod.family())
    write(bundle, authority.pem)
    await pod.qr()


def _is_browser(process: psutil.Process) -> bool:
    return any(argument.startswith("--user-data-dir=") for argument in process.cmdline())
