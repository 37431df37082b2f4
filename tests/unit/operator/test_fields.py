"""Every field of the spec has an effect: on the pod, on the claim, or on the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from unit.operator.situations import (
    NOW,
    SETTINGS,
    VALID,
    facts,
    message,
    of,
    plan,
    report,
    session,
)
from unit.operator.test_plan_bootstrap import COMPLETED
from wasession_api.session_pod.delivery import Configuration
from wasession_api.v1alpha1 import ConditionType, DeliveryPolicy, Webhook
from wasession_api.v1alpha1.delivery import Sink
from wasession_operator import objects
from wasession_operator.effective_spec import EffectiveSpec, merge
from wasession_operator.plan.actions import ConfigureDelivery, DeletePod, DeletePvc, Logout
from wasession_operator.plan.bootstrap import RESTORING
from wasession_operator.plan.facts import NamedBackup

Manifest = dict[str, Any]
Effect = Callable[[Manifest], Any]


def pod(spec: Manifest) -> Manifest:
    return objects.make_pod(
        "ns", "sales", "uid-1", EffectiveSpec.model_validate(spec), SETTINGS, restoring=False
    )


def claim(spec: Manifest) -> Manifest:
    return objects.make_pvc("ns", "sales", "uid-1", EffectiveSpec.model_validate(spec))


def environment(name: str) -> Effect:
    """Return the value of a variable of the session's process."""

    def effect(spec: Manifest) -> Any:
        variables = {e["name"]: e for e in pod(spec)["spec"]["containers"][0]["env"]}
        return variables.get(f"WASESSION_{name}", {}).get("value")

    return effect


def of_pod(*path: str | int) -> Effect:
    return lambda spec: at(pod(spec), *path)


def of_claim(*path: str | int) -> Effect:
    return lambda spec: at(claim(spec), *path)


def at(value: Any, *path: str | int) -> Any:
    """Return a value inside an object; None when the path ends before."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        else:
            value = value[step] if len(value) > int(step) else None
        if value is None:
            return None
    return value


def ends_pod(spec: Manifest) -> bool:
    return bool(of(DeletePod, plan(session(VALID, **spec), facts(report=report()), SETTINGS)))


def logs_out(spec: Manifest) -> bool:
    return bool(
        of(Logout, plan(session(VALID, deleting=True, **spec), facts(report=report()), SETTINGS))
    )


def deletes_claim(spec: Manifest) -> bool:
    return bool(
        of(DeletePvc, plan(session(VALID, deleting=True, **spec), facts(pod=None), SETTINGS))
    )


def updates(spec: Manifest) -> bool:
    return ends_pod({**spec, "browser": {"locale": "de-DE"}})


def ca_bundle(spec: Manifest) -> Any:
    group = spec.get("caBundle", {})
    bundle = {"configMapName": "company"} | group
    return environment("CA_BUNDLE")({**spec, "caBundle": bundle})


def verified(field: str, effect: Effect) -> Effect:
    """Return the effect with the other values that a file with a hash needs."""
    others = {"configMapName": "company", "sha256": "a" * 64}
    return lambda spec: effect({**spec, field: others | spec.get(field, {})})


def volume(name: str) -> Effect:
    """Return the effect on the name of a volume's ConfigMap."""

    def config_map(spec: Manifest) -> Any:
        volumes = of_pod("spec", "volumes")(spec)
        [found] = [volume["configMap"] for volume in volumes if volume["name"] == name]
        assert found["optional"]
        return found["name"]

    return config_map


def delivers(spec: Manifest) -> list[Manifest]:
    """Return the webhooks and sinks that the pod is told, with the policy."""
    told = facts(report=report(delivery_revision="an earlier revision"))
    actions = of(ConfigureDelivery, plan(session(VALID, **spec), told, SETTINGS))
    return [action.configuration.dump() for action in actions]


def told(
    webhooks: list[Manifest] | None = None, sinks: list[Manifest] | None = None, **policy: list[str]
) -> list[Manifest]:
    configuration = Configuration.of(
        [Webhook.model_validate(one) for one in webhooks or []],
        [Sink.model_validate(one) for one in sinks or []],
        DeliveryPolicy.model_validate(policy),
    )
    return [configuration.dump()]


def sleeps(spec: Manifest) -> Any:
    """Return until when an idle session sleeps; None if it does not."""
    idle = report(session_valid=True, idle_since=NOW - timedelta(hours=2))
    planned = plan(session(VALID, **spec), facts(report=idle), SETTINGS)
    sleep = planned.status.hibernation
    return None if sleep is None else sleep.wake_at - NOW


def sleeps_with(**others: Any) -> Effect:
    return lambda spec: sleeps(merge({"hibernation": others}, spec))


def begins(spec: Manifest) -> str:
    """Return what a session without a volume waits for, with a backup of another cluster."""
    named = merge({"bootstrap": {"fromBackup": {"name": "nightly"}}}, spec)
    backup = NamedBackup("b1", COMPLETED, is_served=False)
    seen = facts(pod=None, pvc=None, backup=backup)
    return message(plan(session(**named), seen, SETTINGS), ConditionType.READY)


CONTAINER = ("spec", "containers", 0)
WEBHOOK = {"name": "crm", "url": "https://crm.example.com/", "signingKey": "crm"}
SINK = {"name": "events", "nats": {"servers": ["tls://nats.example.com"], "stream": "WHATSAPP"}}
TOLERATION = {"key": "dedicated", "operator": "Exists"}
AFFINITY: Manifest = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}

# For each field: a value, where its effect shows, and what shows there.
FIELDS: dict[str, tuple[Any, Effect, Any]] = {
    "image": ("mine:1", of_pod(*CONTAINER, "image"), "mine:1"),
    "extraArgs": (["--no-pings"], environment("EXTRA_ARGS"), '["--no-pings"]'),
    "whatsappURL": ("http://x.test", environment("WHATSAPP_URL"), "http://x.test"),
    "caBundle.configMapName": (
        "company",
        of_pod("spec", "volumes", 4, "configMap", "name"),
        "company",
    ),
    "caBundle.key": ("root.pem", ca_bundle, "/etc/wasession-ca/root.pem"),
    "waJS.configMapName": ("wa-js-4.7.0", verified("waJS", volume("wa-js")), "wa-js-4.7.0"),
    "waJS.key": ("wa.js", verified("waJS", environment("WA_JS")), "/etc/wasession-wa-js/wa.js"),
    "waJS.sha256": ("b" * 64, verified("waJS", environment("WA_JS_SHA256")), "b" * 64),
    "whatsappDocument.configMapName": (
        "page",
        verified("whatsappDocument", volume("document")),
        "page",
    ),
    "whatsappDocument.key": (
        "a.html",
        verified("whatsappDocument", environment("DOCUMENT")),
        "/etc/wasession-document/a.html",
    ),
    "whatsappDocument.sha256": (
        "b" * 64,
        verified("whatsappDocument", environment("DOCUMENT_SHA256")),
        "b" * 64,
    ),
    "deliveryPolicy.allowedHosts": (
        ["*.x.test"],
        lambda spec: delivers({"webhooks": [WEBHOOK], **spec}),
        told([WEBHOOK], allowedHosts=["*.x.test"]),
    ),
    "deliveryPolicy.allowedNetworks": (
        ["10.0.0.0/8"],
        lambda spec: delivers({"webhooks": [WEBHOOK], **spec}),
        told([WEBHOOK], allowedNetworks=["10.0.0.0/8"]),
    ),
    "podTemplate.metadata.labels": ({"team": "x"}, of_pod("metadata", "labels", "team"), "x"),
    "podTemplate.metadata.annotations": (
        {"note": "x"},
        of_pod("metadata", "annotations", "note"),
        "x",
    ),
    "podTemplate.spec.nodeSelector": (
        {"disk": "ssd"},
        of_pod("spec", "nodeSelector"),
        {"disk": "ssd"},
    ),
    "podTemplate.spec.tolerations": ([TOLERATION], of_pod("spec", "tolerations"), [TOLERATION]),
    "podTemplate.spec.affinity": (AFFINITY, of_pod("spec", "affinity"), AFFINITY),
    "podTemplate.spec.topologySpreadConstraints": (
        [SPREAD],
        of_pod("spec", "topologySpreadConstraints"),
        [SPREAD],
    ),
    "podTemplate.spec.priorityClassName": ("high", of_pod("spec", "priorityClassName"), "high"),
    "podTemplate.spec.runtimeClassName": ("gvisor", of_pod("spec", "runtimeClassName"), "gvisor"),
    "podTemplate.spec.serviceAccountName": ("mine", of_pod("spec", "serviceAccountName"), "mine"),
    "podTemplate.spec.imagePullSecrets": (
        [{"name": "pull"}],
        of_pod("spec", "imagePullSecrets"),
        [{"name": "pull"}],
    ),
    "podTemplate.spec.securityContext": (
        {"fsGroup": 1},
        of_pod("spec", "securityContext", "fsGroup"),
        1,
    ),
    "storage.size": ("2Gi", of_claim("spec", "resources", "requests", "storage"), "2Gi"),
    "storage.storageClassName": ("fast", of_claim("spec", "storageClassName"), "fast"),
    "storage.accessMode": (
        "ReadWriteOncePod",
        of_claim("spec", "accessModes"),
        ["ReadWriteOncePod"],
    ),
    "storage.retention.whenDeleted": ("Delete", deletes_claim, True),
    "browser.resources.requests": (
        {"cpu": "1"},
        of_pod(*CONTAINER, "resources", "requests"),
        {"cpu": "1"},
    ),
    "browser.resources.limits": (
        {"memory": "2Gi"},
        of_pod(*CONTAINER, "resources", "limits"),
        {"memory": "2Gi"},
    ),
    "browser.shmSize": ("512Mi", of_pod("spec", "volumes", 3, "emptyDir", "sizeLimit"), "512Mi"),
    "browser.userAgent": ("Mine", environment("USER_AGENT"), "Mine"),
    "browser.locale": ("de-DE", environment("LOCALE"), "de-DE"),
    "browser.timezone": ("Europe/Berlin", environment("TIMEZONE"), "Europe/Berlin"),
    "browser.sandbox": ("Required", environment("SANDBOX"), "Required"),
    "browser.proxySecretRef.name": (
        "wasession-proxy-a",
        of_pod("spec", "volumes", 4, "secret", "secretName"),
        "wasession-proxy-a",
    ),
    "browser.liveView": (True, environment("LIVE_VIEW"), "true"),
    "whatsapp.deviceName": ("Desk", environment("DEVICE_NAME"), "Desk"),
    "whatsapp.presence": ("Available", environment("PRESENCE"), "Available"),
    "whatsapp.takeover": ("Once", environment("TAKEOVER"), "Once"),
    "timeouts.initialization": ("1m30s", environment("INITIALIZATION_TIMEOUT"), "90.0"),
    "timeouts.shutdown": (
        "1m",
        of_pod("spec", "terminationGracePeriodSeconds"),
        60 + objects.GRACE_SECONDS,
    ),
    "timeouts.logout": ("1m", environment("LOGOUT_TIMEOUT"), "60.0"),
    "reconnect.initialDelay": ("5s", environment("RECONNECT_INITIAL_DELAY"), "5.0"),
    "reconnect.maxDelay": ("1m", environment("RECONNECT_MAX_DELAY"), "60.0"),
    "events.retention": ("48h", environment("EVENT_RETENTION"), "172800.0"),
    "events.maximumSize": ("1Gi", environment("EVENT_MAXIMUM_BYTES"), str(2**30)),
    "webhooks": ([WEBHOOK], delivers, told([WEBHOOK])),
    "sinks": ([SINK], delivers, told(sinks=[SINK])),
    "hibernation.afterIdle": ("1h", sleeps, timedelta(hours=72)),
    "hibernation.schedule.sleep": (
        "0 22 * * *",  # NOW is 03:04:05
        sleeps_with(schedule={"sleep": "0 5 * * *", "wake": "0 6 * * *"}),
        timedelta(hours=72),
    ),
    "hibernation.schedule.wake": (
        "0 6 * * *",
        sleeps_with(schedule={"sleep": "0 5 * * *", "wake": "0 4 * * *"}),
        None,
    ),
    "hibernation.wakeEvery": ("24h", sleeps_with(afterIdle="1h"), timedelta(hours=24)),
    "updateStrategy": ("RollingUpdate", updates, True),
    "className": ("large", of_pod("metadata", "labels", "wasession.dev/class"), "large"),
    "clientId": ("other", environment("CLIENT_ID"), "other"),
    "owner": ("user-42", of_pod("metadata", "labels", "wasession.dev/owner"), "user-42"),
    "suspend": (True, ends_pod, True),
    "logoutOnDelete": (True, logs_out, True),
    "pairing.method": ("PairingCode", environment("PAIRING_METHOD"), "PairingCode"),
    "pairing.phoneNumber": ("15551234567", environment("PHONE_NUMBER"), "15551234567"),
    "pairing.maxRounds": (2, environment("MAX_ROUNDS"), "2"),
    "bootstrap.fromBackup.name": (
        "other",
        lambda spec: "WhatsAppSessionBackup other " in begins(spec),
        True,
    ),
    "bootstrap.fenced": (True, begins, RESTORING),
}


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Return the paths of all fields that do not group others."""
    for field in model.model_fields.values():
        path = f"{prefix}{field.alias}"
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        group = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None
        )
        if group is not None and getattr(field.annotation, "__origin__", None) is not list:
            yield from fields(group, f"{path}.")
        else:
            yield path


def test_every_field_is_covered() -> None:
    without_effect = {
        "replicas",  # always 1, for the scale subresource
        # Of backups, not of pods.
        *("backupPolicy.recipients", "backupPolicy.volumeSnapshotClassName"),
        *("backup.schedule", "backup.keep", "backup.method"),
    }
    assert list(FIELDS) == [field for field in fields(EffectiveSpec) if field not in without_effect]


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_has_its_effect(path: str) -> None:
    value, effect, expected = FIELDS[path]
    spec: Manifest = {}
    group = spec
    *groups, last = path.split(".")
    for name in groups:
        group = group.setdefault(name, {})
    group[last] = value
    assert effect(spec) == expected
    assert effect({}) != expected, "without the field it is something else"
