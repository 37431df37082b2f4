"""Webhooks: the request of an event, its signature, and where it may go."""

from __future__ import annotations

import base64
import ipaddress
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook, WebhookVerificationError
from support import processes
from wasession_api.v1alpha1 import DeliveryPolicy
from wasession_pod.delivery.cloud_events import (
    InvalidKey,
    parse_keys,
    request,
    signed_headers,
)
from wasession_pod.delivery.guard import Forbidden, Guard, GuardedResolver

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NODE_PROGRAM = Path(processes.__file__).parent / "standardwebhooks" / "verify.mjs"


def test_an_event_is_a_cloud_event() -> None:
    made = request(
        "/namespaces/crm/whatsappsessions/sales",
        "5c1f0e7a9b3d4c62-7",
        "message",
        "2026-01-02T03:04:05Z",
        "15551234567@c.us",
        '{"text":"Grüße"}',
    )
    assert json.loads(made.body) == {
        "specversion": "1.0",
        "id": "5c1f0e7a9b3d4c62-7",
        "source": "/namespaces/crm/whatsappsessions/sales",
        "type": "dev.wasession.message",
        "subject": "15551234567@c.us",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "data": {"text": "Grüße"},
    }
    without = request("/x", "a-1", "gap", "2026-01-02T03:04:05Z", "", "{}")
    assert "subject" not in json.loads(without.body)


def test_a_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks libraries."""
    made = request("/x", "msg_p5jXN8AQM9LWM0D4loKWxJek", "x", "t", "", "{}")._replace(
        body=b'{"test": 2432232314}'
    )
    headers = signed_headers(made, parse_keys(KEY), 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"


def test_the_library_of_standard_webhooks_accepts_a_request_and_no_other() -> None:
    made = request("/x", "a-1", "message", "2026-01-02T03:04:05Z", "", '{"text":"Grüße"}')
    headers = signed_headers(made, parse_keys(KEY), int(time.time()))
    assert Webhook(KEY).verify(made.body, dict(headers))["data"] == {"text": "Grüße"}
    for forged in (made.body + b" ", made.body.replace(b"a-1", b"a-2")):
        with pytest.raises(WebhookVerificationError):
            Webhook(KEY).verify(forged, dict(headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(made.body, {**headers, "webhook-id": "a-2"})


def test_the_library_for_node_accepts_a_request_and_no_other() -> None:
    made = request("/x", "a-1", "message", "2026-01-02T03:04:05Z", "", '{"text":"Grüße"}')
    headers = dict(signed_headers(made, parse_keys(KEY), int(time.time())))
    assert verify_in_node(headers, made.body.decode())["data"] == {"text": "Grüße"}
    with pytest.raises(subprocess.CalledProcessError) as error:
        verify_in_node(headers, made.body.decode() + " ")
    assert "WebhookVerificationError" in error.value.stderr


def verify_in_node(headers: dict[str, str], body: str) -> Any:
    """Return what npm's standardwebhooks makes of a request."""
    sent = json.dumps({"key": KEY, "headers": headers, "body": body})
    command = ["node", str(NODE_PROGRAM)]
    done = subprocess.run(command, input=sent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_while_a_key_is_replaced_both_sign() -> None:
    other = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    made = request("/x", "a-1", "x", "t", "", "{}")
    both = signed_headers(made, parse_keys(f"{KEY}\n\n {other}\n"), 1)["webhook-signature"]
    each = [signed_headers(made, parse_keys(one), 1)["webhook-signature"] for one in (KEY, other)]
    assert both.split(" ") == each


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("secret", "whsec_"),
        ("whsec_!!", "base64"),
        ("whsec_AAAA", "3 bytes"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "65 bytes"),
    ],
)
def test_what_is_no_key_is_named_without_its_content(text: str, problem: str) -> None:
    with pytest.raises(InvalidKey, match=problem) as error:
        parse_keys(text)
    assert not text.removeprefix("whsec_") or text.removeprefix("whsec_") not in str(error.value)


# --- where they may go ----------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of clouds
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:10.1.2.3",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
    "2002:a9fe:a9fe::1",  # 6to4 of the same
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused_unless_the_class_allows_them(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    with pytest.raises(Forbidden, match="not a public address"):
        Guard().check_address(parsed)


def test_networks_that_the_class_allows_are_allowed() -> None:
    guard = Guard.of(DeliveryPolicy(allowed_networks=["10.0.0.0/8", "fd00::/8"]))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "93.184.216.34"):
        guard.check_address(ipaddress.ip_address(address))
    with pytest.raises(Forbidden):
        guard.check_address(ipaddress.ip_address("192.168.1.1"))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "[::1]", "[fe80::1%eth0]"],
)
def test_a_private_address_in_the_url_is_refused_in_every_form(host: str) -> None:
    with pytest.raises(Forbidden):
        Guard().check_host(host)


def test_only_hosts_that_the_class_allows() -> None:
    guard = Guard.of(DeliveryPolicy(allowed_hosts=["*.example.com", "hooks.example.org"]))
    for host in ("crm.example.com", "CRM.Example.Com.", "hooks.example.org"):
        guard.check_host(host)
    for host in ("example.com", "example.com.evil.net", "crm-example.com", "hooks.example.org.x"):
        with pytest.raises(Forbidden, match="does not allow"):
            guard.check_host(host)


class Names(AbstractResolver):
    """Knows one name, with these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=0, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


async def test_a_name_counts_as_what_it_resolves_to() -> None:
    mixed = GuardedResolver(Guard(), Names("10.0.0.1", "93.184.216.34"))
    assert [one["host"] for one in await mixed.resolve("a.example.com")] == ["93.184.216.34"]
    private = GuardedResolver(Guard(), Names("10.0.0.1", "fe80::1%eth0"))
    with pytest.raises(Forbidden, match=r"a\.example\.com"):
        await private.resolve("a.example.com")
