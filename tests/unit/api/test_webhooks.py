"""Webhooks: what a spec may have, and what a pod is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from wasession_api.session_pod.webhooks import Configuration
from wasession_api.v1alpha1 import Webhook, WebhookPolicy

WEBHOOK = {"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example.com",
        "http://crm.sales.svc:8080/hook?tenant=1&x=%20",
        "https://[2001:db8::1]:8443/",
        "https://203.0.113.7/",
    ],
)
def test_urls(url: str) -> None:
    assert Webhook.model_validate({**WEBHOOK, "url": url}).url == url


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://crm.example.com/"},
        {"url": "https://user:secret@crm.example.com/"},
        {"url": "https://crm.example.com/#part"},
        {"url": "https://crm.example.com/a b"},
        {"url": "https://crm.example.com\\@other.example.com/"},
        {"url": "https://crm.example.com:99999/"},
        {"url": "https://crm.example.com/\r\nX: y"},
        {"name": "CRM"},
        {"signingKey": "../token"},
        {"events": ["state"]},
        {"timeout": 10},
        {"retry": {"longest": False}},
        {"secret": "x"},
    ],
)
def test_what_makes_no_sense_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Webhook.model_validate({**WEBHOOK, **wrong})


@pytest.mark.parametrize("network", ["10.96.0.0/12", "10.0.0.1/8", "fd00::/8", "192.0.2.1"])
def test_networks(network: str) -> None:
    assert WebhookPolicy(allowed_networks=[network]).allowed_networks == [network]


@pytest.mark.parametrize("network", ["", "10.0.0.0/33", "example.com", "10.0.0"])
def test_what_is_no_network_is_rejected(network: str) -> None:
    with pytest.raises(ValidationError, match="CIDR"):
        WebhookPolicy(allowed_networks=[network])


def test_a_revision_tells_configurations_apart() -> None:
    webhook = Webhook.model_validate(WEBHOOK)
    one = Configuration.of([webhook], WebhookPolicy())
    assert one.revision
    assert one == Configuration.of([webhook], WebhookPolicy())
    other = Configuration.of([webhook], WebhookPolicy(allowed_hosts=["crm.example.com"]))
    assert other.revision not in ("", one.revision)
    assert Configuration.of([], WebhookPolicy(allowed_hosts=["x"])) == Configuration()


def test_two_webhooks_have_two_names() -> None:
    with pytest.raises(ValidationError, match="different names"):
        Configuration.model_validate({"webhooks": [WEBHOOK, WEBHOOK]})
