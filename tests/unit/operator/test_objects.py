"""The objects as whole values: any change of a session's pod shows here."""

from __future__ import annotations

from typing import Any

import pytest
from wasession_api.session_pod.tokens import tokens
from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.settings import Settings

SETTINGS = Settings(session_image="session-pod:1")


def pod(**spec: Any) -> dict[str, Any]:
    return objects.make_pod(
        "ns", "sales", "uid-1", EffectiveSpec.model_validate(spec), SETTINGS, restoring=False
    )


def environment(**spec: Any) -> dict[str, Any]:
    return {
        e["name"].removeprefix("WASESSION_"): e.get("value")
        for e in pod(**spec)["spec"]["containers"][0]["env"]
    }


def test_the_pod_of_a_plain_session() -> None:
    made = pod(owner="user-42")
    assert made["metadata"]["name"] == "wasession-sales"
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/name": "wasession-session",
        "app.kubernetes.io/managed-by": "wasession-operator",
        "wasession.dev/session": "sales",
        "wasession.dev/owner": "user-42",
    }
    assert made["metadata"]["ownerReferences"] == [objects.owner_reference("sales", "uid-1")]
    safe = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    assert made["metadata"]["annotations"][safe] == "tmp,shm"
    spec = made["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["terminationGracePeriodSeconds"] == 45
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    [container] = spec["containers"]
    assert container["image"] == "session-pod:1"
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {"memory": "1Gi"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert environment(owner="user-42") == {
        "CLIENT_ID": "sales",
        "NAMESPACE": "ns",
        "SESSION": "sales",
        "SESSION_UID": "uid-1",
        "OWNER": "user-42",
        "TOKEN_FILE": "/etc/wasession/token",
        "DATA_DIR": "/var/lib/wasession",
        "WHATSAPP_URL": "https://web.whatsapp.com",
        "PRESENCE": "Unavailable",
        "SANDBOX": "Auto",
        "TAKEOVER": "Never",
        "PAIRING_METHOD": "QRCode",
        "MAX_ROUNDS": "5",
        "INITIALIZATION_TIMEOUT": "120.0",
        "SHUTDOWN_TIMEOUT": "30.0",
        "LOGOUT_TIMEOUT": "30.0",
        "RECONNECT_INITIAL_DELAY": "2.0",
        "RECONNECT_MAX_DELAY": "300.0",
        "EXTRA_ARGS": "[]",
        "QUARANTINE_RETENTION": "2592000.0",
        "RESTORING": "false",
    }


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ({"clientId": "other"}, "CLIENT_ID", "other"),
        ({"whatsapp": {"url": "http://x.test"}}, "WHATSAPP_URL", "http://x.test"),
        ({"whatsapp": {"deviceName": "Desk"}}, "DEVICE_NAME", "Desk"),
        ({"whatsapp": {"takeover": "Once"}}, "TAKEOVER", "Once"),
        (
            {"pairing": {"method": "PairingCode", "phoneNumber": "15551234567"}},
            "PHONE_NUMBER",
            "15551234567",
        ),
        ({"pairing": {"maxRounds": 2}}, "MAX_ROUNDS", "2"),
        ({"timeouts": {"initialization": "1m30s"}}, "INITIALIZATION_TIMEOUT", "90.0"),
        ({"reconnect": {"maxDelay": "1m"}}, "RECONNECT_MAX_DELAY", "60.0"),
        ({"browser": {"userAgent": "Mine"}}, "USER_AGENT", "Mine"),
        ({"browser": {"locale": "de-DE"}}, "LOCALE", "de-DE"),
        ({"browser": {"timezone": "Europe/Berlin"}}, "TIMEZONE", "Europe/Berlin"),
        ({"browser": {"extraArgs": ["--lean"]}}, "EXTRA_ARGS", '["--lean"]'),
    ],
)
def test_fields_that_reach_the_session_pod(spec: dict[str, Any], name: str, value: str) -> None:
    assert environment(**spec)[name] == value


def test_the_proxy_comes_from_its_secret() -> None:
    env = pod(browser={"proxySecretRef": {"name": "proxy"}})["spec"]["containers"][0]["env"]
    references = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in env if "valueFrom" in e}
    assert references["WASESSION_PROXY_SERVER"] == {
        "name": "proxy",
        "key": "server",
        "optional": False,
    }
    assert references["WASESSION_PROXY_PASSWORD"] == {
        "name": "proxy",
        "key": "password",
        "optional": True,
    }


def test_the_pod_template_is_merged() -> None:
    made = pod(
        podTemplate={
            "metadata": {"labels": {"team": "sales"}, "annotations": {"note": "x"}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "priorityClassName": "high",
                "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                "securityContext": {"seccompProfile": {"type": "Unconfined"}},
            },
        }
    )
    assert made["metadata"]["labels"]["team"] == "sales"
    assert made["metadata"]["annotations"]["note"] == "x"
    assert made["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert made["spec"]["priorityClassName"] == "high"
    assert made["spec"]["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert made["spec"]["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_hash_depends_on_the_template_only() -> None:
    def digest(*, restoring: bool = False, **spec: Any) -> str:
        made = objects.make_pod(
            "ns",
            "sales",
            "uid-1",
            EffectiveSpec.model_validate(spec),
            SETTINGS,
            restoring=restoring,
        )
        return str(made["metadata"]["annotations"]["wasession.dev/template-hash"])

    assert (
        digest()
        == digest(restoring=True)
        == digest(suspend=True)
        == digest(storage={"size": "2Gi"})
    )
    assert digest() != digest(browser={"locale": "de-DE"})
    assert digest() == objects.desired_hash("ns", "sales", "uid-1", EffectiveSpec(), SETTINGS)


def test_the_claim() -> None:
    spec = {
        "storage": {"size": "2Gi", "storageClassName": "fast", "accessMode": "ReadWriteOncePod"}
    }
    claim = objects.make_pvc("ns", "sales", "uid-1", EffectiveSpec.model_validate(spec))
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "2Gi"}},
        "storageClassName": "fast",
    }
    assert "ownerReferences" not in claim["metadata"]
    deleted = EffectiveSpec.model_validate({"storage": {"retention": {"whenDeleted": "Delete"}}})
    assert objects.make_pvc("ns", "sales", "uid-1", deleted)["metadata"]["ownerReferences"]


def test_the_secret_belongs_to_the_session() -> None:
    token = objects.new_token()
    secret = objects.make_secret("ns", "sales", "uid-1", EffectiveSpec(), token, request="1")
    assert tokens(secret) == [token.value]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert secret["metadata"]["annotations"]["wasession.dev/rotate-token"] == "1"
    assert token.value not in str(secret["metadata"])


def test_tokens_are_new_each_time() -> None:
    one, other = objects.new_token(), objects.new_token()
    assert one.value != other.value
    assert one.id != other.id


# --- finalizers -----------------------------------------------------------------------------------

OURS = "wasession.dev/session"
THIS = {"op": "test", "path": "/metadata/uid", "value": "uid-1"}


@pytest.mark.parametrize(
    ("present", "add", "operations"),
    [
        (
            (),
            True,
            [
                {"op": "test", "path": "/metadata/finalizers", "value": None},
                {"op": "add", "path": "/metadata/finalizers", "value": [OURS]},
            ],
        ),
        (("other",), True, [{"op": "add", "path": "/metadata/finalizers/-", "value": OURS}]),
        (
            ("other", OURS),
            False,
            [
                {"op": "test", "path": "/metadata/finalizers/1", "value": OURS},
                {"op": "remove", "path": "/metadata/finalizers/1"},
            ],
        ),
    ],
)
def test_the_finalizer_leaves_others_alone(
    present: tuple[str, ...], add: bool, operations: list[dict[str, Any]]
) -> None:
    assert objects.finalizer_patch("uid-1", present, add=add) == [THIS, *operations]


def test_the_probe_of_a_starting_pod_waits_for_its_answer() -> None:
    """One that is refused or times out leaves a Warning at the pod."""
    probe = pod()["spec"]["containers"][0]["startupProbe"]
    assert probe["initialDelaySeconds"] >= 1, "longer than it takes Python to listen"
    assert probe["timeoutSeconds"] >= 30, "longer than the imports take on a busy node"


def test_the_pod_knows_the_version_of_its_proxys_secret() -> None:
    made = objects.make_pod(
        "ns", "sales", "uid-1", EffectiveSpec(), SETTINGS, restoring=False, proxy_version="7"
    )
    assert made["metadata"]["annotations"]["wasession.dev/proxy-version"] == "7"
    plain = pod()["metadata"]["annotations"]
    assert "wasession.dev/proxy-version" not in plain
    hashes = {a["wasession.dev/template-hash"] for a in (plain, made["metadata"]["annotations"])}
    assert len(hashes) == 1


def test_the_pod_knows_the_previous_owners_of_its_claim() -> None:
    identity = ("ns", "sales", "uid-1", EffectiveSpec(), SETTINGS)
    plain = objects.make_pod(*identity, restoring=False)
    handed_over = objects.make_pod(*identity, restoring=False, previous_owners=("alice", ""))
    added = [
        variable
        for variable in handed_over["spec"]["containers"][0]["env"]
        if variable not in plain["spec"]["containers"][0]["env"]
    ]
    assert added == [{"name": "WASESSION_PREVIOUS_OWNERS", "value": '["alice", ""]'}]
    template = "wasession.dev/template-hash"
    assert (
        handed_over["metadata"]["annotations"][template]
        == (plain["metadata"]["annotations"][template])
    )
