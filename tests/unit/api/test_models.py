"""The models: durations, defaults, other versions' objects and invalid values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from wasession_api.base import format_duration, parse_duration
from wasession_api.crd import crd
from wasession_api.http.problem import describe_error
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import (
    AccountStatus,
    AuthState,
    ClassSpec,
    ConditionType,
    DisconnectKind,
    Phase,
    Spec,
    Status,
    account_status,
)


@given(st.integers(0, 10**8))
def test_durations_come_back_as_they_went(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "2", "m", "1.5h", "-1s", "1s2m", "2 m", "1h 2m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_a_spec_is_complete_by_its_defaults() -> None:
    spec = Spec.model_validate({})
    assert spec.timeouts.initialization == timedelta(minutes=2)
    assert Spec.model_validate(spec.dump()) == spec


def test_an_amount_may_be_a_number() -> None:
    spec = Spec.model_validate({"browser": {"resources": {"limits": {"cpu": 1}}}})
    assert spec.browser.resources.limits["cpu"] == "1"


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_an_account_status(phase: Phase) -> None:
    expected = {
        Phase.READY: AccountStatus.READY,
        Phase.AUTHENTICATING: AccountStatus.AUTHENTICATING,
        Phase.STARTING: AccountStatus.ACTIVE,
        Phase.RESTORING: AccountStatus.ACTIVE,
        Phase.SYNCING: AccountStatus.ACTIVE,
        Phase.HIBERNATED: AccountStatus.ACTIVE,
    }
    assert account_status(phase) is expected.get(phase, AccountStatus.DISCONNECTED)


REPORT: dict[str, Any] = {
    "clientId": "a",
    "startedAt": "2026-01-02T03:04:05Z",
    "seq": 1,
    "phase": "Ready",
    "reason": "Connected",
}
PAIRING = {"available": True, "method": "QRCode", "attempt": 1}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Connected",
    "lastTransitionTime": "2026-01-02T03:04:05Z",
}
LOST = {"at": "2026-01-02T03:04:05Z", "kind": "Logout", "reason": "LOGOUT"}


# --- objects of newer versions --------------------------------------------------------------------


def test_a_stored_spec_may_have_fields_of_a_newer_crd() -> None:
    stored = {"owner": "u", "future": 1, "browser": {"future": {"a": 1}, "locale": "de"}}
    spec = Spec.read(stored)
    assert (spec.owner, spec.browser.locale) == ("u", "de")
    with pytest.raises(ValidationError, match="future"):
        Spec.model_validate(stored)  # people's input stays strict


def test_a_stored_spec_may_lack_the_fields_of_a_newer_operator() -> None:
    assert Spec.read({"storage": {"size": "2Gi"}}).storage.retention == Spec().storage.retention


def test_a_stored_spec_with_an_invalid_value_is_rejected() -> None:
    with pytest.raises(ValidationError):
        Spec.read({"whatsapp": {"takeover": "Sometimes"}})


def test_a_report_of_a_newer_pod_is_read() -> None:
    report = Report.model_validate(
        REPORT
        | {"phase": "Hibernating", "reason": "New", "authState": "NEW", "future": 1}
        | {"message": "x" * 5000, "sessionValid": True, "pairing": PAIRING | {"method": "Passkey"}}
        | {"lastDisconnect": LOST | {"kind": "New"}}
    )
    assert report.phase is Phase.RECONNECTING
    assert report.auth_state is None
    assert report.session_valid
    assert report.pairing is None
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.CONNECTION
    assert report.message.endswith("…")


def test_a_report_with_known_values_is_read_exactly() -> None:
    report = Report.model_validate(
        REPORT | {"authState": "CONNECTED", "pairing": PAIRING, "lastDisconnect": LOST}
    )
    assert (report.phase, report.auth_state) == (Phase.READY, AuthState.CONNECTED)
    assert report.pairing is not None
    assert report.last_disconnect is not None
    assert report.last_disconnect.kind is DisconnectKind.LOGOUT


def test_a_status_of_a_newer_operator_is_read() -> None:
    status = Status.model_validate(
        {
            "phase": "Dreaming",
            "accountStatus": "sleeping",
            "authState": "NEW",
            "conditions": [CONDITION, CONDITION | {"type": "BackedUp"}],
            "pairing": PAIRING | {"method": "Passkey"},
            "lastDisconnect": LOST | {"kind": "New"},
            "sessionValid": True,
            "logout": {"request": "r", "at": "2026-01-02T03:04:05Z", "done": True},
            "future": {},
        }
    )
    assert (status.phase, status.account_status, status.auth_state) == (None, None, None)
    assert [condition.type for condition in status.conditions] == [ConditionType.READY]
    assert status.session_valid
    assert status.logout is not None
    assert status.logout.done


def test_the_crd_accepts_the_status_of_a_newer_operator() -> None:
    """No field of the status has a closed set of values."""
    version = crd()["spec"]["versions"][0]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert list(enums("status", status)) == []
    assert "Known values: Pending, Starting," in status["properties"]["phase"]["description"]


def enums(path: str, schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield path
    for name, child in schema.get("properties", {}).items():
        yield from enums(f"{path}.{name}", child)
    if "items" in schema:
        yield from enums(f"{path}[]", schema["items"])


def test_a_report_may_warn_with_reasons_that_are_not_known() -> None:
    assert Report.model_validate(REPORT).warnings == []
    warning = {"reason": "Tomorrow", "message": "m", "level": 3}
    report = Report.model_validate(REPORT | {"warnings": [warning]})
    assert report.dump()["warnings"] == [{"reason": "Tomorrow", "message": "m"}]


# --- values that are rejected ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"className": "a.b"}, "className: must be a name of lower-case"),
        ({"className": "a" * 41}, "className: String should have at most 40"),
        (
            {"whatsapp": {"deviceName": "a\x1b[2Jb"}},
            "whatsapp.deviceName: must not contain control",
        ),
        ({"browser": {"timezone": "Mars/Phobos"}}, "browser.timezone: must be a name of the IANA"),
        ({"browser": {"timezone": "Europe/Berln"}}, "browser.timezone: must be a name of the IANA"),
        ({"browser": {"timezone": "europe/berlin"}}, "browser.timezone: must be a name of the"),
        ({"browser": {"userAgent": "a\r\nX: b"}}, "browser.userAgent: must be one line"),
        ({"browser": {"userAgent": " a"}}, "browser.userAgent: must be one line"),
        ({"browser": {"userAgent": "ü"}}, "browser.userAgent: must be one line"),
        (
            {"browser": {"proxySecretRef": {"name": "wasession-proxy-a..b"}}},
            "browser.proxySecretRef.name: must begin with wasession-proxy-",
        ),
        (
            {"browser": {"proxySecretRef": {"name": "wasession-sales-eu"}}},
            "browser.proxySecretRef.name: must begin with wasession-proxy-",
        ),
        ({"owner": "user\x1b[31m"}, "owner: must not contain control characters"),
        ({"owner": "user\x9b31m"}, "owner: must not contain control characters"),
        ({"pairing": {"phoneNumber": "+1 555"}}, "pairing.phoneNumber: must be country code"),
        ({"replicas": 2}, "replicas: Input should be less than or equal to 1"),
    ],
)
def test_an_invalid_value_is_rejected_with_a_sentence(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate(spec)
    assert describe_error(error.value).startswith(message)
    with pytest.raises(ValidationError):
        Spec.read(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"image": "registry.example/a"},
        {"extraArgs": ["--mute-audio"]},
        {"podTemplate": {}},
        {"egress": []},
        {"browser": {"image": "registry.example/a"}},
        {"browser": {"extraArgs": ["--mute-audio"]}},
        {"whatsapp": {"url": "https://web.whatsapp.com"}},
    ],
)
def test_a_session_cannot_set_what_its_class_decides(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Spec.model_validate(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"className": "a" * 40},
        {"whatsapp": {"deviceName": "Küche 1"}},
        {"browser": {"timezone": "America/Argentina/Buenos_Aires"}},
        {"browser": {"timezone": "Etc/GMT+12"}},
        {"browser": {"timezone": "UTC"}},
        {"browser": {"userAgent": "Mozilla/5.0 (X11; Linux x86_64)"}},
        {"browser": {"proxySecretRef": {"name": "wasession-proxy-1.eu"}}},
        {"owner": "auth0|user:42 (Müller)"},
    ],
)
def test_a_valid_value_is_accepted(spec: dict[str, Any]) -> None:
    Spec.model_validate(spec)


# --- classes --------------------------------------------------------------------------------------

URL = "whatsappURL: must be an http"
IMAGE = "image: must be a container image"
FLAG = "extraArgs.0: must be one of the Chromium flags --blink-settings, "


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"whatsappURL": "https://web.whatsapp.com:99999"}, URL),
        ({"whatsappURL": "https://web.whatsapp.com:0"}, URL),
        ({"whatsappURL": "https://-a..b"}, URL),
        ({"whatsappURL": "https://web.whatsapp.com\n"}, URL),
        ({"image": "Foo/Bar::"}, IMAGE),
        ({"image": "a//b"}, IMAGE),
        ({"image": "a:1:2"}, IMAGE),
        ({"image": "host:99999/a"}, IMAGE),
        ({"extraArgs": ["--window-size=\x1b[2J"]}, FLAG),
        ({"extraArgs": ["--renderer-cmd-prefix=/bin/sh"]}, FLAG),
        ({"extraArgs": ["--log-net-log=/var/lib/wasession/log"]}, FLAG),
        ({"extraArgs": ["--incognito"]}, FLAG),
        ({"extraArgs": ["--js-flags=--prof --logfile=/var/lib/wasession/log"]}, FLAG),
        ({"extraArgs": ["--no-sandbox"]}, FLAG),
        ({"extraArgs": ["--mute-audio-and-more"]}, FLAG),
        ({"extraArgs": ["https://example.com"]}, FLAG),
        ({"allowedNamespaces": []}, "allowedNamespaces: List should have at least 1"),
        ({"allowedNamespaces": ["*-a"]}, "allowedNamespaces.0: must be the name of a namespace"),
        ({"overrides": ["image"]}, "overrides.0: Input should be 'storage.size', "),
        ({"limits": {"memory": "much"}}, "limits.memory: must be a quantity"),
        ({"limits": {"sessionsPerOwner": -1}}, "limits.sessionsPerOwner: Input should be greater"),
        ({"caBundle": {"configMapName": "a", "key": "../b"}}, "caBundle.key: must be a key"),
        ({"waJS": {"configMapName": "a"}}, "waJS.sha256: Field required"),
        ({"waJS": {"configMapName": "a", "sha256": "A" * 64}}, "waJS.sha256: must be a SHA-256"),
        ({"whatsappDocument": {"sha256": "a" * 64}}, "whatsappDocument.configMapName: Field"),
        ({"podTemplate": {"spec": {"containers": []}}}, "podTemplate.spec.containers: Extra"),
        ({"podTemplate": {"spec": {"volumes": []}}}, "podTemplate.spec.volumes: Extra"),
        ({"template": {"owner": "a"}}, "template.owner: Extra inputs"),
    ],
)
def test_an_invalid_value_of_a_class_is_rejected_with_a_sentence(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as error:
        ClassSpec.model_validate(spec)
    assert describe_error(error.value).startswith(message)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"whatsappURL": "http://standin.standin.svc:8080"},
        {"whatsappURL": "https://web.whatsapp.com:65535"},
        {"image": "session-pod"},
        {"image": "localhost/wasession/session-pod:dev"},
        {"image": "registry.example:5000/a__b/c.d-e:V1.0_x"},
        {"image": f"ghcr.io/a/b:1@sha256:{'0a' * 32}"},
        {"extraArgs": ["--mute-audio", "--window-size=800,600"]},
        {"allowedNamespaces": ["team-a", "team-*", "*"]},
        {"podTemplate": {"spec": {"tolerations": [{"operator": "Exists"}]}}},
    ],
)
def test_a_valid_value_of_a_class_is_accepted(spec: dict[str, Any]) -> None:
    ClassSpec.model_validate(spec)
