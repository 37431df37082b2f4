"""The objects as whole values: any change of a session's pod shows here."""

from __future__ import annotations

from typing import Any

import pytest
from wasession_api.session_pod.token_derivation import token_id
from wasession_api.session_pod.tokens import tokens
from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.settings import Settings

SETTINGS = Settings(session_image="session-pod:1")
LOCAL_PROFILE = {"type": "Localhost", "localhostProfile": "chromium.json"}


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
    # It is to be linked.
    assert made["metadata"]["annotations"][objects.SAFE_TO_EVICT] == "false"
    assert made["metadata"]["annotations"][objects.DO_NOT_DISRUPT] == "true"
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
        "EVENT_RETENTION": "604800.0",
        "EVENT_MAXIMUM_BYTES": "67108864",
        "EXTRA_ARGS": "[]",
        "QUARANTINE_RETENTION": "2592000.0",
        "DELIVERY_SECRET": "/etc/wasession-delivery",
        "RESTORING": "false",
    }


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ({"clientId": "other"}, "CLIENT_ID", "other"),
        ({"whatsappURL": "http://x.test"}, "WHATSAPP_URL", "http://x.test"),
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
        ({"extraArgs": ["--no-pings"]}, "EXTRA_ARGS", '["--no-pings"]'),
        ({"browser": {"liveView": True}}, "LIVE_VIEW", "true"),
    ],
)
def test_fields_that_reach_the_session_pod(spec: dict[str, Any], name: str, value: str) -> None:
    assert environment(**spec)[name] == value


def mounted(made: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a volume and its mount."""
    [volume] = [volume for volume in made["spec"]["volumes"] if volume["name"] == name]
    mounts = made["spec"]["containers"][0]["volumeMounts"]
    [mount] = [mount for mount in mounts if mount["name"] == name]
    return volume, mount


def test_the_proxy_comes_from_files_that_may_be_missing() -> None:
    """The pod says so then; a variable of a missing Secret would let it hang."""
    spec: dict[str, Any] = {"browser": {"proxySecretRef": {"name": "wasession-proxy-a"}}}
    volume, mount = mounted(pod(**spec), "proxy")
    assert volume["secret"] == {
        "secretName": "wasession-proxy-a",
        "optional": True,
        "defaultMode": 0o440,
    }
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/wasession-proxy", True)
    assert environment(**spec)["PROXY_DIRECTORY"] == "/etc/wasession-proxy"
    assert "valueFrom" not in str(pod(**spec)), "no Secret is in the environment"


def test_the_ca_bundle_comes_from_a_config_map_that_may_be_missing() -> None:
    spec: dict[str, Any] = {"caBundle": {"configMapName": "company", "key": "root.pem"}}
    volume, mount = mounted(pod(**spec), "ca")
    assert volume["configMap"] == {"name": "company", "optional": True}
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/wasession-ca", True)
    assert environment(**spec)["CA_BUNDLE"] == "/etc/wasession-ca/root.pem"


@pytest.mark.parametrize(
    ("field", "name", "variable", "key"),
    [("waJS", "wa-js", "WA_JS", "wa-js"), ("whatsappDocument", "document", "DOCUMENT", "document")],
)
def test_a_file_with_a_hash_comes_from_a_config_map_that_may_be_missing(
    field: str, name: str, variable: str, key: str
) -> None:
    """The pod says so then, where kubelet would let it hang."""
    spec: dict[str, Any] = {field: {"configMapName": "company", "sha256": "a" * 64}}
    volume, mount = mounted(pod(**spec), name)
    assert volume["configMap"] == {"name": "company", "optional": True}
    assert (mount["mountPath"], mount["readOnly"]) == (f"/etc/wasession-{name}", True)
    assert environment(**spec)[variable] == f"/etc/wasession-{name}/{key}"
    assert environment(**spec)[f"{variable}_SHA256"] == "a" * 64
    assert not {f"{variable}", f"{variable}_SHA256"} & environment().keys()


def test_the_pod_template_is_merged() -> None:
    made = pod(
        podTemplate={
            "metadata": {"labels": {"team": "sales"}, "annotations": {"note": "x"}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "priorityClassName": "high",
                "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                "securityContext": {"seccompProfile": LOCAL_PROFILE},
            },
        }
    )
    assert made["metadata"]["labels"]["team"] == "sales"
    assert made["metadata"]["annotations"]["note"] == "x"
    assert made["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert made["spec"]["priorityClassName"] == "high"
    assert made["spec"]["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert made["spec"]["securityContext"]["seccompProfile"] == LOCAL_PROFILE
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
    present, previous = "p" * 43, "q" * 43
    secret = objects.make_secret("ns", "sales", "uid-1", EffectiveSpec(), [present, previous])
    assert secret["metadata"]["name"] == "wasession-token-sales"
    assert tokens(secret) == [present, previous]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert secret["metadata"]["annotations"]["wasession.dev/token-id"] == token_id(present)
    assert secret["type"] != "Opaque", "so that it is never applied to somebody else's"
    assert present not in str(secret["metadata"])
    first = objects.make_secret("ns", "sales", "uid-1", EffectiveSpec(), [present])
    assert first["data"].keys() == {"token"}


# --- Pod Security ---------------------------------------------------------------------------------

CONTEXTS: list[dict[str, Any]] = [
    {},
    {"runAsNonRoot": False},
    {"runAsUser": 0},
    {"runAsUser": 0, "runAsGroup": 0, "fsGroup": 0, "supplementalGroups": [0]},
    {"runAsUser": 2000},
    {"seccompProfile": {"type": "Unconfined"}},
    {"seccompProfile": LOCAL_PROFILE},
    {"seccompProfile": {}},
    {"seccompProfile": None},
    {"appArmorProfile": {"type": "Unconfined"}},
    {"seLinuxOptions": {"type": "spc_t"}},
    {"seLinuxOptions": {"user": "system_u"}},
    {"seLinuxOptions": {"role": "system_r"}},
    {"seLinuxOptions": {"level": "s0:c1", "type": "container_t"}},
    {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
    {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
    {"windowsOptions": {"hostProcess": True}},
]
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
HOST_FIELDS = {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"}


@pytest.mark.parametrize("user", [10001, None])
@pytest.mark.parametrize("merged", CONTEXTS)
def test_the_pod_is_restricted_whatever_its_class_says(
    merged: dict[str, Any], user: int | None
) -> None:
    spec = {
        "podTemplate": {"spec": {"securityContext": merged}},
        "caBundle": {"configMapName": "company"},
        "browser": {"proxySecretRef": {"name": "wasession-proxy-a"}},
    }
    settings = SETTINGS.model_copy(update={"run_as_user": user})
    effective = EffectiveSpec.model_validate(spec)
    made = objects.make_pod("ns", "sales", "uid-1", effective, settings, restoring=False)["spec"]
    context = made["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context.get("runAsUser") != 0
    assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    assert context.get("appArmorProfile", {}).get("type") != "Unconfined"
    assert "windowsOptions" not in context
    selinux = context.get("seLinuxOptions", {})
    assert selinux.get("type", "") in ("", "container_t")
    assert not {"user", "role"} & selinux.keys()
    sysctls = {sysctl["name"] for sysctl in context.get("sysctls", [])}
    assert sysctls <= {"net.ipv4.tcp_syncookies"}
    assert not HOST_FIELDS & made.keys()
    assert all(volume.keys() & VOLUMES for volume in made["volumes"])
    [container] = made["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPort" in port for port in container["ports"])
    assert not any("host" in probe["httpGet"] for probe in probes(container))


def probes(container: dict[str, Any]) -> list[dict[str, Any]]:
    return [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]


def test_a_class_can_change_what_is_restricted_as_well() -> None:
    merged = {"runAsUser": 2000, "fsGroup": 3000, "seccompProfile": LOCAL_PROFILE}
    context = pod(podTemplate={"spec": {"securityContext": merged}})["spec"]["securityContext"]
    assert context.items() >= merged.items()


def test_the_platform_may_choose_the_user() -> None:
    settings = SETTINGS.model_copy(update={"run_as_user": None})
    made = objects.make_pod("ns", "sales", "uid-1", EffectiveSpec(), settings, restoring=False)
    assert made["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


# --- finalizers -----------------------------------------------------------------------------------

OURS = "wasession.dev/session"
THIS = [
    {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
    {"op": "replace", "path": "/metadata/resourceVersion", "value": "5"},
]


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
    assert objects.finalizer_patch("uid-1", "5", present, add=add) == [*THIS, *operations]


def test_the_probe_of_a_starting_pod_waits_for_its_answer() -> None:
    """One that is refused or times out leaves a Warning at the pod."""
    probe = pod()["spec"]["containers"][0]["startupProbe"]
    assert probe["initialDelaySeconds"] >= 1, "longer than it takes Python to listen"
    assert probe["timeoutSeconds"] >= 30, "longer than the imports take on a busy node"


def test_the_pod_knows_the_request_that_it_fulfils() -> None:
    """Else a session could not tell a person's word from a drained node."""
    identity = ("ns", "sales", "uid-1", EffectiveSpec(), SETTINGS)
    plain = objects.make_pod(*identity, restoring=False)
    restarted = objects.make_pod(*identity, restoring=False, restart="now")
    env = [made["spec"]["containers"][0]["env"] for made in (plain, restarted)]
    assert [one for one in env[1] if one not in env[0]] == [
        {"name": "WASESSION_RESTART", "value": "now"}
    ]
    template = "wasession.dev/template-hash"
    annotations = [made["metadata"]["annotations"] for made in (plain, restarted)]
    assert annotations[0][template] == annotations[1][template]


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
