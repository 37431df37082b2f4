"""The CRD in a real API server: what it rejects with which message, and its subresources."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.fakes.api import Api, ApiError, Manifest, path
from support.fakes.world import Environment

NAMESPACE = "crd"
SESSIONS = path("whatsappsessions", NAMESPACE)


@pytest.fixture(scope="module")
async def api(environment: Environment) -> AsyncIterator[Api]:
    """The administrator's client; no operator runs."""
    api = environment.api
    await api.create("namespaces", {"metadata": {"name": NAMESPACE}})
    yield api
    for session in (await api.list("whatsappsessions", NAMESPACE))["items"]:
        await api.delete("whatsappsessions", NAMESPACE, session["metadata"]["name"])
    await api.delete("namespaces", None, NAMESPACE)


def manifest(spec: Manifest, name: str = "sales") -> Manifest:
    return {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSession",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"suspend": True, **spec},
    }


async def try_out(api: Api, spec: Manifest) -> Manifest:
    """Create a session in a dry run, as strictly as kubectl does."""
    options = "dryRun=All&fieldValidation=Strict"
    return await api.call("POST", f"{SESSIONS}?{options}", manifest(spec))


def message(error: pytest.ExceptionInfo[ApiError]) -> str:
    text: str = json.loads(str(error.value).partition(": ")[2])["message"]
    return text


INVALID: list[tuple[Manifest, str]] = [
    ({"whatsapp": {"url": "https://web.whatsapp.com:99999"}}, "must be an http or https origin"),
    ({"whatsapp": {"url": "https://a..b"}}, "must be an http or https origin"),
    ({"whatsapp": {"deviceName": "a\x1b[2Jb"}}, "must not contain control characters"),
    ({"browser": {"image": "Foo/Bar::"}}, "must be a container image"),
    ({"browser": {"timezone": "Mars/Phobos"}}, "must be a name of the IANA time zone database"),
    ({"browser": {"timezone": "Europe/Berln"}}, "must be a name of the IANA time zone database"),
    ({"browser": {"userAgent": "a\r\nX-Header: b"}}, "must be one line of printable ASCII"),
    ({"browser": {"extraArgs": ["--a=\x1b[2J"]}}, "must be one Chromium flag"),
    ({"browser": {"proxySecretRef": {"name": "a..b"}}}, "must be a name of lower-case letters"),
    ({"browser": {"resources": {"limits": {"a b": "1"}}}}, "must have valid keys"),
    ({"owner": "user\x1b[31m"}, "must not contain control characters"),
    ({"owner": "user\x9b31m"}, "must not contain control characters"),
    ({"replicas": 0}, "to stop it, set spec.suspend to true"),
    ({"replicas": 2}, "must be 1"),
    ({"timeouts": {"shutdown": "1h"}}, "must be from 5s to 10m"),
    ({"storage": {"size": "1"}}, "is the unit missing?"),
    ({"pairing": {"method": "PairingCode"}}, "phoneNumber is required"),
]


@pytest.mark.parametrize(
    ("spec", "expected"), INVALID, ids=[json.dumps(spec)[:60] for spec, _ in INVALID]
)
async def test_an_invalid_value_is_rejected_with_a_sentence(
    api: Api, spec: Manifest, expected: str
) -> None:
    with pytest.raises(ApiError) as error:
        await try_out(api, spec)
    assert error.value.status == 422
    assert expected in message(error)
    assert "should match" not in message(error)


VALID: list[Manifest] = [
    {},
    {"browser": {"image": f"ghcr.io:443/a/b_c:1.0@sha256:{'0a' * 32}"}},
    {"browser": {"timezone": "America/Argentina/Buenos_Aires", "userAgent": "Mozilla/5.0 (X11)"}},
    {"browser": {"resources": {"limits": {"cpu": 1, "nvidia.com/gpu": 1}}}},
    {"whatsapp": {"url": "http://standin.standin.svc:65535", "deviceName": "Küche"}},
    {"owner": "auth0|user:42 (Müller)", "replicas": 1},
]


@pytest.mark.parametrize("spec", VALID, ids=[json.dumps(spec)[:60] for spec in VALID])
async def test_a_valid_value_is_accepted(api: Api, spec: Manifest) -> None:
    await try_out(api, spec)


# --- storage --------------------------------------------------------------------------------------


async def set_size(api: Api, name: str, size: str) -> str:
    patched = await api.patch(
        "whatsappsessions", NAMESPACE, name, {"spec": {"storage": {"size": size}}}
    )
    result: str = patched["spec"]["storage"]["size"]
    return result


async def set_status(api: Api, name: str, status: Manifest) -> Manifest:
    return await api.patch(
        "whatsappsessions", NAMESPACE, name, {"status": status}, subresource="status"
    )


async def test_an_expansion_can_be_taken_back_to_the_capacity_of_the_volume(api: Api) -> None:
    await api.create("whatsappsessions", manifest({"storage": {"size": "1Gi"}}, "expansion"))
    assert await set_size(api, "expansion", "2Gi") == "2Gi"
    with pytest.raises(ApiError) as error:  # the capacity is not known
        await set_size(api, "expansion", "1Gi")
    assert "cannot shrink below the capacity of the volume" in message(error)
    await set_status(api, "expansion", {"pvcCapacity": "1Gi"})
    assert await set_size(api, "expansion", "1Gi") == "1Gi"
    with pytest.raises(ApiError) as error:
        await set_size(api, "expansion", "1023Mi")
    assert "cannot shrink below the capacity of the volume" in message(error)


# --- subresources and selectors -------------------------------------------------------------------


async def test_the_scale_subresource(api: Api) -> None:
    """A PodDisruptionBudget asks it how many pods a session should have."""
    created = await api.create("whatsappsessions", manifest({}, "scale"))
    assert created["spec"]["replicas"] == 1
    await set_status(api, "scale", {"replicas": 1, "selector": "wasession.dev/session=scale"})
    scale = await api.call("GET", f"{SESSIONS}/scale/scale")
    assert scale["spec"]["replicas"] == 1
    assert scale["status"] == {"replicas": 1, "selector": "wasession.dev/session=scale"}
    with pytest.raises(ApiError) as error:
        await api.patch(
            "whatsappsessions", NAMESPACE, "scale", {"spec": {"replicas": 0}}, subresource="scale"
        )
    assert "set spec.suspend to true" in message(error)


@pytest.fixture(scope="module")
async def owned(api: Api) -> None:
    """Two sessions of one owner."""
    await api.create("whatsappsessions", manifest({"owner": "alice"}, "one"))
    await api.create("whatsappsessions", manifest({"owner": "alice", "clientId": "other"}, "two"))
    await set_status(api, "two", {"phase": "Ready", "nodeName": "node-1", "sessionValid": True})


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("spec.owner=alice", ["one", "two"]),
        ("spec.owner=alice,status.phase=Ready", ["two"]),
        ("spec.clientId=other", ["two"]),
        ("status.nodeName=node-1,spec.suspend=true", ["two"]),
        ("status.sessionValid=true", ["two"]),
    ],
)
@pytest.mark.usefixtures("owned")
async def test_field_selectors(api: Api, selector: str, names: list[str]) -> None:
    selected = await api.call("GET", f"{SESSIONS}?fieldSelector={selector}")
    assert [item["metadata"]["name"] for item in selected["items"]] == names


# --- versions -------------------------------------------------------------------------------------


async def test_a_newer_operator_can_write_its_status(api: Api) -> None:
    """Unknown values are stored; unknown fields are dropped, not the whole status."""
    await api.create("whatsappsessions", manifest({}, "newer"))
    condition: dict[str, Any] = {
        "type": "Delivering",
        "status": "True",
        "reason": "New",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    status = {
        "phase": "Hibernated",
        "accountStatus": "sleeping",
        "authState": "NEW",
        "conditions": [condition],
    }
    written = await set_status(api, "newer", status | {"future": 1})
    assert written["status"] == status
