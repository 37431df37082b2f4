"""Who is to blame when WhatsApp Web cannot be loaded through a proxy."""

from __future__ import annotations

import asyncio

import pytest
from wasession_api.v1alpha1 import Reason
from wasession_pod.browser import proxy
from wasession_pod.browser.errors import PROXY_SILENT, PROXY_UNREACHABLE, Unreachable
from wasession_pod.browser.proxy import find_proxy_fault

ORIGIN = "https://web.whatsapp.com"


@pytest.mark.parametrize("scheme", ["", "http://"])
@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", None),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", None),
        (b"", PROXY_SILENT),
        (None, PROXY_SILENT),
    ],
    ids=["accepts", "refuses", "cannot reach WhatsApp", "hangs up", "never answers"],
)
async def test_what_the_proxy_answers(
    answer: bytes | None, fault: str | None, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is None:
        monkeypatch.setattr(proxy, "PROXY_TIMEOUT", 0.5)
    requests: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await find_proxy_fault(f"{scheme}127.0.0.1:{port}", ORIGIN) == fault
    request = await requests.get()
    assert request.startswith(b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\n")
    server.close()


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_no_connection(scheme: str) -> None:
    assert await find_proxy_fault(f"{scheme}://127.0.0.1:9", ORIGIN) == PROXY_UNREACHABLE


@pytest.mark.parametrize(
    "address", ["http://proxy:99999", "proxy:port", "http://[::1", f"http://{'x' * 64}.example:1"]
)
async def test_an_address_that_is_none(address: str) -> None:
    assert await find_proxy_fault(address, ORIGIN) == PROXY_UNREACHABLE


async def test_a_socks_proxy_that_accepts_connections_is_not_to_blame() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await find_proxy_fault(f"socks5://127.0.0.1:{port}", ORIGIN) is None
    server.close()


@pytest.mark.parametrize("fault", [PROXY_UNREACHABLE, PROXY_SILENT])
def test_the_reason_is_the_proxy(fault: str) -> None:
    assert Unreachable(f"{fault} (Timeout 3000ms exceeded.)").reason is Reason.PROXY_FAILED
    assert Unreachable("Timeout 3000ms exceeded.").reason is Reason.WHATSAPP_UNREACHABLE
