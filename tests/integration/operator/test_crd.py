"""The CRDs in a real API server: what they reject with which message, and their subresources."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.fakes.api import Api, ApiError, Manifest, path
from support.fakes.world import Environment
from wasession_api.v1alpha1 import Override

NAMESPACE = "crd"
SESSIONS = path("whatsappsessions", NAMESPACE)
CLASSES = path("whatsappsessionclasses")
STRICT = "dryRun=All&fieldValidation=Strict"  # as strictly as kubectl


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


def class_manifest(spec: Manifest, name: str = "crd-test") -> Manifest:
    return {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSessionClass",
        "metadata": {"name": name},
        "spec": spec,
    }


async def try_out(api: Api, spec: Manifest) -> Manifest:
    """Create a session in a dry run."""
    return await api.call("POST", f"{SESSIONS}?{STRICT}", manifest(spec))


async def try_class(api: Api, spec: Manifest, name: str = "crd-test") -> Manifest:
    """Create a class in a dry run."""
    return await api.call("POST", f"{CLASSES}?{STRICT}", class_manifest(spec, name))


def message(error: pytest.ExceptionInfo[ApiError]) -> str:
    text: str = json.loads(str(error.value).partition(": ")[2])["message"]
    return text


INVALID: list[tuple[Manifest, str]] = [
    ({"className": "Not A Name"}, "must be a name of lower-case letters, digits and -"),
    ({"whatsapp": {"deviceName": "a\x1b[2Jb"}}, "must not contain control characters"),
    ({"browser": {"timezone": "Mars/Phobos"}}, "must be a name of the IANA time zone database"),
    ({"browser": {"timezone": "Europe/Berln"}}, "must be a name of the IANA time zone database"),
    ({"browser": {"userAgent": "a\r\nX-Header: b"}}, "must be one line of printable ASCII"),
    (
        {"browser": {"proxySecretRef": {"name": "wasession-proxy-a..b"}}},
        "must begin with wasession-proxy-",
    ),
    (
        {"browser": {"proxySecretRef": {"name": "wasession-sales"}}},
        "must begin with wasession-proxy-",
    ),
    ({"browser": {"resources": {"limits": {"a b": "1"}}}}, "must have valid keys"),
    (
        {"browser": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
        "must be of cpu, memory and ephemeral-storage only",
    ),
    ({"owner": "user\x1b[31m"}, "must not contain control characters"),
    ({"owner": "user\x9b31m"}, "must not contain control characters"),
    ({"replicas": 0}, "to stop it, set spec.suspend to true"),
    ({"replicas": 2}, "must be 1"),
    ({"timeouts": {"shutdown": "1h"}}, "must be from 5s to 10m"),
    ({"storage": {"size": "1"}}, "is the unit missing?"),
    ({"pairing": {"method": "PairingCode"}}, "phoneNumber is required"),
    (
        {"browser": {"shmSize": "2Gi", "resources": {"limits": {"memory": "1Gi"}}}},
        "shmSize counts towards the memory limit",
    ),
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
    {"className": "a" * 40},
    {"browser": {"timezone": "America/Argentina/Buenos_Aires", "userAgent": "Mozilla/5.0 (X11)"}},
    {"browser": {"resources": {"limits": {"cpu": 1, "ephemeral-storage": "1Gi"}}}},
    {"browser": {"proxySecretRef": {"name": "wasession-proxy-1.eu"}}},
    {"whatsapp": {"deviceName": "Küche"}},
    {"owner": "auth0|user:42 (Müller)", "replicas": 1},
]


@pytest.mark.parametrize("spec", VALID, ids=[json.dumps(spec)[:60] for spec in VALID])
async def test_a_valid_value_is_accepted(api: Api, spec: Manifest) -> None:
    await try_out(api, spec)


OF_THE_CLASS: list[Manifest] = [
    {"image": "registry.example/a"},
    {"extraArgs": ["--mute-audio"]},
    {"podTemplate": {"spec": {"serviceAccountName": "admin"}}},
    {"egress": []},
    {"caBundle": {"configMapName": "a"}},
    {"waJS": {"configMapName": "a", "sha256": "a" * 64}},
    {"whatsappDocument": {"configMapName": "a", "sha256": "a" * 64}},
    {"browser": {"image": "registry.example/a"}},
    {"browser": {"extraArgs": ["--mute-audio"]}},
    {"whatsapp": {"url": "https://web.whatsapp.com"}},
]


@pytest.mark.parametrize("spec", OF_THE_CLASS, ids=[json.dumps(spec)[:60] for spec in OF_THE_CLASS])
async def test_a_session_has_no_fields_of_its_class(api: Api, spec: Manifest) -> None:
    """Clients that do not ask for strictness have them dropped."""
    with pytest.raises(ApiError) as error:
        await try_out(api, spec)
    assert "unknown field" in message(error)
    dropped = await api.call("POST", f"{SESSIONS}?dryRun=All", manifest(spec))
    plain = await try_out(api, {})
    for name in spec:
        assert dropped["spec"].get(name, {}) == plain["spec"].get(name, {})


async def test_what_comes_from_the_class_gets_no_defaults(api: Api) -> None:
    assert (await try_out(api, {}))["spec"] == {
        "replicas": 1,
        "suspend": True,
        "logoutOnDelete": False,
        "pairing": {"method": "QRCode", "maxRounds": 5},
    }


# --- classes --------------------------------------------------------------------------------------

POD = "podTemplate"
FLAG = "must be one of the Chromium flags --blink-settings, "
UNSUPPORTED = "Unsupported value"
SHA256 = "a" * 64
INVALID_CLASSES: list[tuple[Manifest, str]] = [
    ({"image": "Foo/Bar::"}, "must be a container image"),
    ({"whatsappURL": "https://web.whatsapp.com:99999"}, "must be an http or https origin"),
    ({"whatsappURL": "https://a..b"}, "must be an http or https origin"),
    ({"whatsappURL": "https://web.whatsapp.com/path"}, "must be an http or https origin"),
    ({"extraArgs": ["--window-size=\x1b[2J"]}, FLAG),
    ({"extraArgs": ["--unknown"]}, FLAG),
    ({"extraArgs": ["--incognito"]}, FLAG),
    ({"extraArgs": ["--js-flags=--prof --logfile=/var/lib/wasession/log"]}, FLAG),
    ({"extraArgs": ["--no-sandbox"]}, FLAG),
    ({"extraArgs": ["--user-data-dir=/tmp"]}, FLAG),
    ({"extraArgs": ["--renderer-cmd-prefix=/bin/sh -c id"]}, FLAG),
    ({"extraArgs": ["--log-net-log=/var/lib/wasession/log"]}, FLAG),
    ({"extraArgs": ["--remote-debugging-address=0.0.0.0"]}, FLAG),
    ({"extraArgs": ["--mute-audio --no-sandbox"]}, FLAG),
    ({"extraArgs": ["file:///etc/passwd"]}, FLAG),
    ({"caBundle": {"key": "a"}}, "configMapName: Required value"),
    ({"caBundle": {"configMapName": "a", "key": "../token"}}, "must be a key of a ConfigMap"),
    ({"waJS": {"configMapName": "a"}}, "sha256: Required value"),
    ({"waJS": {"sha256": SHA256}}, "configMapName: Required value"),
    ({"waJS": {"configMapName": "a", "sha256": f"sha256:{SHA256}"}}, "Too long"),
    ({"waJS": {"configMapName": "a", "sha256": SHA256.upper()}}, "must be a SHA-256: 64 digits"),
    ({"waJS": {"configMapName": "a", "sha256": SHA256, "key": "../a"}}, "must be a key of a"),
    ({"waJS": {"configMapName": "A", "sha256": SHA256}}, "must be"),
    ({"whatsappDocument": {"configMapName": "a"}}, "sha256: Required value"),
    ({"whatsappDocument": {"configMapName": "a", "sha256": ""}}, "must be a SHA-256: 64 digits"),
    ({"whatsappDocument": {"url": "https://x.test"}}, "unknown field"),
    ({"allowedNamespaces": []}, "should have at least 1 items"),
    ({"allowedNamespaces": ["*-a"]}, "must be the name of a namespace, or the beginning of one"),
    ({"overrides": ["image"]}, UNSUPPORTED),
    ({"limits": {"memory": "1e9"}}, "must be a quantity"),
    ({"template": {"storage": {"size": "1"}}}, "is the unit missing?"),
    ({"template": {"owner": "a"}}, "unknown field"),
    ({"template": {"browser": {"proxySecretRef": {"name": "a"}}}}, "must begin with"),
    ({POD: {"metadata": {"labels": {"wasession.dev/session": "x"}}}}, "they are the operator's"),
    (
        {POD: {"metadata": {"annotations": {"wasession.dev/client-id": "x"}}}},
        "they are the operator's",
    ),
    ({POD: {"metadata": {"labels": {"a b": "x"}}}}, "must have valid keys"),
    ({POD: {"spec": {"nodeSelector": {"a b": "x"}}}}, "must have valid keys"),
    ({POD: {"spec": {"containers": []}}}, "unknown field"),
    ({POD: {"spec": {"volumes": []}}}, "unknown field"),
    ({POD: {"spec": {"hostNetwork": True}}}, "unknown field"),
    ({POD: {"spec": {"tolerations": [{"operator": "Nope"}]}}}, UNSUPPORTED),
    ({POD: {"spec": {"tolerations": [{"effect": "Nope"}]}}}, UNSUPPORTED),
    ({POD: {"spec": {"tolerations": ["a"]}}}, "must be of type object"),
    ({POD: {"spec": {"affinity": {"x": [1, 2]}}}}, "unknown field"),
    ({POD: {"spec": {"affinity": {"nodeAffinity": []}}}}, "must be of type object"),
    ({POD: {"spec": {"topologySpreadConstraints": [{}]}}}, "Required value"),
    ({POD: {"spec": {"securityContext": {"runAsUser": "root"}}}}, "must be of type integer"),
    ({POD: {"spec": {"securityContext": {"privileged": True}}}}, "unknown field"),
    ({POD: {"spec": {"securityContext": {"seccompProfile": {"type": "No"}}}}}, UNSUPPORTED),
    ({"egress": [{"to": [{"ipBlock": {}}]}]}, "cidr: Required value"),
    ({"egress": [{"ports": [{"protocol": "ICMP"}]}]}, UNSUPPORTED),
]


@pytest.mark.parametrize(
    ("spec", "expected"),
    INVALID_CLASSES,
    ids=[json.dumps(spec)[:70] for spec, _ in INVALID_CLASSES],
)
async def test_an_invalid_class_is_rejected_with_a_sentence(
    api: Api, spec: Manifest, expected: str
) -> None:
    with pytest.raises(ApiError) as error:
        await try_class(api, spec)
    assert expected in message(error)


async def test_the_name_of_a_class_is_short_enough_for_names_made_of_it(api: Api) -> None:
    for name in ("a" * 41, "a.b"):
        with pytest.raises(ApiError) as error:
            await try_class(api, {}, name)
        assert "metadata.name must have at most 40" in message(error)


VALID_CLASSES: list[Manifest] = [
    {},
    {"image": f"ghcr.io:443/a/b_c:1.0@sha256:{'0a' * 32}"},
    {"whatsappURL": "http://standin.standin.svc:65535"},
    {"extraArgs": ["--mute-audio", "--window-size=800,600"]},
    {"overrides": [field.value for field in Override]},
    {"limits": {"storage": "5Gi", "cpu": "1500m", "memory": "2Gi", "sessionsPerOwner": 0}},
    {"template": {"browser": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}},
    {"allowedNamespaces": ["team-a", "team-*", "*"]},
    {
        "egress": [
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}, {"port": "x"}]}
        ]
    },
    {
        POD: {
            "metadata": {"labels": {"team": "a"}, "annotations": {"example.com/note": "x"}},
            "spec": {
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
                ],
            },
        }
    },
]


@pytest.mark.parametrize(
    "spec", VALID_CLASSES, ids=[json.dumps(spec)[:60] for spec in VALID_CLASSES]
)
async def test_a_valid_class_is_accepted_as_it_is(api: Api, spec: Manifest) -> None:
    assert (await try_class(api, spec))["spec"] == spec


async def test_the_status_of_a_class(api: Api) -> None:
    """Each operator has its own entry, and none may write the spec with it."""
    await api.create("whatsappsessionclasses", class_manifest({}, "used"))
    used: list[Manifest] = [
        {"operator": "a/operator", "sessions": 2, "namespaces": 1},
        {"operator": "b/operator", "sessions": 0, "namespaces": 0},
    ]
    for use in used:
        await api.call(
            "PATCH",
            f"{CLASSES}/used/status?fieldManager={use['operator'].replace('/', '-')}",
            {
                "apiVersion": "wasession.dev/v1alpha1",
                "kind": "WhatsAppSessionClass",
                "spec": {"image": "registry.example/a"},
                "status": {"usedBy": [use]},
            },
            "application/apply-patch+yaml",
        )
    stored = await api.get("whatsappsessionclasses", None, "used")
    assert stored["status"]["usedBy"] == used
    assert stored.get("spec", {}) == {}
    await api.delete("whatsappsessionclasses", None, "used")


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
