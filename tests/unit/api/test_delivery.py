"""Webhooks and sinks: what a spec may have, and what a pod is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from wasession_api.session_pod.delivery import Configuration
from wasession_api.v1alpha1 import DeliveryPolicy, Spec, Webhook
from wasession_api.v1alpha1.delivery import Sink

WEBHOOK = {"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}
NATS = {"servers": ["tls://nats.example.com:4222"], "stream": "WHATSAPP"}
SINK = {"name": "events", "nats": NATS}


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


@pytest.mark.parametrize(
    "subject", ["whatsapp", "a.{namespace}-{session}.{kind}", "A_1.b-2", "{kind}.x{kind}"]
)
def test_subjects(subject: str) -> None:
    sink = Sink.model_validate({**SINK, "nats": {**NATS, "subject": subject}})
    assert sink.nats.subject == subject


@pytest.mark.parametrize(
    "wrong",
    [
        {"servers": []},
        {"servers": ["https://nats.example.com"]},
        {"servers": ["nats://user:secret@nats.example.com"]},
        {"servers": ["nats://nats.example.com/path"]},
        {"servers": ["nats://nats.example.com:4222\r\n"]},
        {"stream": ""},
        {"stream": "a.b"},
        {"subject": "whatsapp.>"},
        {"subject": "whatsapp.*"},
        {"subject": "$JS.API.STREAM.DELETE.WHATSAPP"},
        {"subject": "whatsapp..x"},
        {"subject": "whatsapp.{token}"},
        {"subject": "whatsapp x"},
        {"credentials": "../token"},
        {"password": "x"},
    ],
)
def test_a_sink_that_makes_no_sense_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sink.model_validate({**SINK, "nats": {**NATS, **wrong}})


@pytest.mark.parametrize("network", ["10.96.0.0/12", "10.0.0.1/8", "fd00::/8", "192.0.2.1"])
def test_networks(network: str) -> None:
    assert DeliveryPolicy(allowed_networks=[network]).allowed_networks == [network]


@pytest.mark.parametrize("network", ["", "10.0.0.0/33", "example.com", "10.0.0"])
def test_what_is_no_network_is_rejected(network: str) -> None:
    with pytest.raises(ValidationError, match="CIDR"):
        DeliveryPolicy(allowed_networks=[network])


def test_a_revision_tells_configurations_apart() -> None:
    webhook = Webhook.model_validate(WEBHOOK)
    one = Configuration.of([webhook], [], DeliveryPolicy())
    assert one.revision
    assert one == Configuration.of([webhook], [], DeliveryPolicy())
    other = Configuration.of([webhook], [], DeliveryPolicy(allowed_hosts=["crm.example.com"]))
    assert other.revision not in ("", one.revision)
    assert Configuration.of([], [], DeliveryPolicy(allowed_hosts=["x"])) == Configuration()


def test_webhooks_and_sinks_have_different_names() -> None:
    sink = {**SINK, "name": WEBHOOK["name"]}
    for same in ({"webhooks": [WEBHOOK, WEBHOOK]}, {"webhooks": [WEBHOOK], "sinks": [sink]}):
        for model in (Configuration, Spec):
            with pytest.raises(ValidationError, match="different names"):
                model.model_validate(same)
