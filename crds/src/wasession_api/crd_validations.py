"""The CRD's validation rules (CEL) beyond types and patterns, by the path of their schema."""

from __future__ import annotations

from wasession_api.base import DURATION, Model
from wasession_api.v1alpha1.backup import BackupSpec
from wasession_api.v1alpha1.spec import LABEL_KEY, QUANTITY

Rule = dict[str, str]
RESERVED_KEY = "k.startsWith('wasession.dev/') || k.startsWith('app.kubernetes.io/')"


def rule(expression: str, message: str) -> Rule:
    return {"rule": expression, "message": message}


def _immutable(field: str) -> Rule:
    """Reject changes of an optional field of ``spec.storage``, also adding and removing it."""
    new, old = (
        f"(has({which}.spec.storage) && has({which}.spec.storage.{field}))"
        for which in ("self", "oldSelf")
    )
    return rule(
        f"{new} == {old} && "
        f"(!{new} || !{old} || self.spec.storage.{field} == oldSelf.spec.storage.{field})",
        f"spec.storage.{field} is immutable; delete the session and create another",
    )


def _unchanged(model: type[Model], but: str) -> str:
    """Return CEL that rejects changes of all fields except one, also adding and removing them."""
    aliases = (str(field.alias) for field in model.model_fields.values())
    return " && ".join(
        f"has(self.{name}) == has(oldSelf.{name}) && "
        f"(!has(self.{name}) || self.{name} == oldSelf.{name})"
        for name in aliases
        if name != but
    )


def _duration(least: str, most: str) -> list[Rule]:
    """Bound a duration; its pattern rejects a malformed one."""
    bounds = f"duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    return [
        rule(f"!self.matches(r'{DURATION}') || ({bounds})", f"must be from {least} to {most}"),
    ]


def _at_least(least: str) -> Rule:
    """Bound a quantity; this catches a forgotten unit, ``1`` for ``1Gi``."""
    return rule(
        f"!isQuantity(self) || quantity(self).compareTo(quantity('{least}')) >= 0",
        f"must be at least {least}; is the unit missing?",
    )


def _valid_keys(example: str) -> Rule:
    return rule(
        f"self.all(k, k.matches(r'{LABEL_KEY}'))", f"must have valid keys, such as {example}"
    )


SESSION = [
    rule(
        "has(self.spec.clientId) || self.metadata.name.matches(r'^[a-zA-Z0-9_-]{1,64}$')",
        "spec.clientId is required when metadata.name has dots or more than 64 characters",
    ),
    rule(
        "(has(self.spec.clientId) ? self.spec.clientId : self.metadata.name) == "
        "(has(oldSelf.spec.clientId) ? oldSelf.spec.clientId : oldSelf.metadata.name)",
        "spec.clientId is immutable: it identifies the login on the volume",
    ),
    _immutable("storageClassName"),
    _immutable("accessMode"),
    # An expansion that the storage does not support can be taken back.
    rule(
        "!has(self.spec.storage) || !has(self.spec.storage.size) || "
        "!has(oldSelf.spec.storage) || !has(oldSelf.spec.storage.size) || "
        "!isQuantity(self.spec.storage.size) || !isQuantity(oldSelf.spec.storage.size) || "
        "quantity(self.spec.storage.size).compareTo(quantity(oldSelf.spec.storage.size)) >= 0 || "
        "(has(self.status) && has(self.status.pvcCapacity) && "
        "isQuantity(self.status.pvcCapacity) && "
        "quantity(self.spec.storage.size).compareTo(quantity(self.status.pvcCapacity)) >= 0)",
        "spec.storage.size cannot shrink below the capacity of the volume",
    ),
]
PAIRING = [
    rule(
        "self.method != 'PairingCode' || has(self.phoneNumber)",
        "phoneNumber is required for method PairingCode",
    ),
    rule(
        "self.method != 'QRCode' || !has(self.phoneNumber)",
        "phoneNumber requires method PairingCode",
    ),
]
BROWSER = [
    rule(
        "!has(self.shmSize) || !isQuantity(self.shmSize) || "
        "!has(self.resources) || !has(self.resources.limits) || "
        "!('memory' in self.resources.limits) || "
        "!isQuantity(string(self.resources.limits['memory'])) || "
        "quantity(self.shmSize)"
        ".compareTo(quantity(string(self.resources.limits['memory']))) <= 0",
        "shmSize counts towards the memory limit and must not exceed it",
    )
]
RESOURCES = [
    rule(
        "!has(self.limits) || !has(self.requests) || "
        "['cpu', 'memory'].all(r, !(r in self.limits) || !(r in self.requests) || "
        "!isQuantity(string(self.limits[r])) || !isQuantity(string(self.requests[r])) || "
        "quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)",
        "requests of cpu and memory must not exceed their limits",
    ),
    rule(
        "!has(self.limits) || !('memory' in self.limits) || "
        "!isQuantity(string(self.limits['memory'])) || "
        "quantity(string(self.limits['memory'])).compareTo(quantity('256Mi')) >= 0",
        "the memory limit must be at least 256Mi; is the unit missing?",
    ),
]
AMOUNTS = [
    _valid_keys("cpu or memory"),
    rule(
        f"self.all(r, string(self[r]).matches(r'{QUANTITY.regex}'))",
        "must have quantities such as 512Mi or 1Gi",
    ),
]
# A session's class decides about devices such as GPUs.
SESSION_AMOUNTS = [
    *AMOUNTS,
    rule(
        "self.all(r, r in ['cpu', 'memory', 'ephemeral-storage'])",
        "must be of cpu, memory and ephemeral-storage only; a class can set others",
    ),
]
RECONNECT = [
    rule(
        "!has(self.initialDelay) || !has(self.maxDelay) || "
        f"!self.initialDelay.matches(r'{DURATION}') || !self.maxDelay.matches(r'{DURATION}') || "
        "duration(self.initialDelay) <= duration(self.maxDelay)",
        "initialDelay must not exceed maxDelay",
    )
]

LABELS = [
    _valid_keys("team or example.com/team"),
    rule(
        f"self.all(k, !({RESERVED_KEY}))",
        "must not contain labels of wasession.dev/ and app.kubernetes.io/: they are the operator's",
    ),
]
ANNOTATIONS = [
    _valid_keys("note or example.com/note"),
    rule(
        f"self.all(k, !({RESERVED_KEY}))",
        "must not contain annotations of wasession.dev/ and app.kubernetes.io/: "
        "they are the operator's",
    ),
]
# Of the fields that a session and its class's template have in common.
TEMPLATE = {
    "storage.size": [_at_least("64Mi")],
    "browser": BROWSER,
    "browser.shmSize": [_at_least("1Mi")],
    "browser.resources": RESOURCES,
    "browser.resources.requests": AMOUNTS,
    "browser.resources.limits": AMOUNTS,
    "reconnect": RECONNECT,
    "reconnect.initialDelay": _duration("1s", "1h"),
    "reconnect.maxDelay": _duration("1s", "1h"),
    "timeouts.initialization": _duration("10s", "1h"),
    "timeouts.shutdown": _duration("5s", "10m"),
    "timeouts.logout": _duration("5s", "10m"),
    "events.retention": _duration("1h", "2160h"),
    "events.maximumSize": [_at_least("1Mi")],
    "webhooks[].timeout": _duration("1s", "1m"),
    "webhooks[].retry.longest": _duration("1m", "168h"),
    "sinks[].timeout": _duration("1s", "1m"),
    "sinks[].retry.longest": _duration("1m", "168h"),
}
NAMES = [
    rule(
        "!has(self.webhooks) || !has(self.sinks) || "
        "self.webhooks.all(w, !self.sinks.exists(s, s.name == w.name))",
        "webhooks and sinks must have different names",
    )
]
SESSION_VALIDATIONS: dict[str, list[Rule]] = {
    **{f"spec.{path}": rules for path, rules in TEMPLATE.items()},
    "": SESSION,
    "spec": NAMES,
    "spec.pairing": PAIRING,
    "spec.replicas": [
        rule("self == 1", "must be 1: a session has one pod; to stop it, set spec.suspend to true")
    ],
    "spec.browser.resources.requests": SESSION_AMOUNTS,
    "spec.browser.resources.limits": SESSION_AMOUNTS,
}
CLASS_VALIDATIONS: dict[str, list[Rule]] = {
    **{f"spec.template.{path}": rules for path, rules in TEMPLATE.items()},
    "": [
        rule(
            "self.metadata.name.matches(r'^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')",
            "metadata.name must have at most 40 lower-case letters, digits and -: "
            "it is part of other names",
        )
    ],
    "spec.template": NAMES,
    "spec.podTemplate.metadata.labels": LABELS,
    "spec.podTemplate.metadata.annotations": ANNOTATIONS,
    "spec.deliveryPolicy.allowedNetworks[]": [
        rule("isCIDR(self)", "must be a network in CIDR notation, such as 10.96.0.0/12")
    ],
    "spec.podTemplate.spec.nodeSelector": [_valid_keys("kubernetes.io/arch")],
    "spec.rollout.canary.matchLabels": [_valid_keys("canary")],
    "spec.rollout.soak": _duration("0s", "168h"),
    "spec.rollout.steps": [
        rule(
            "self.all(s, type(s) == int ? int(s) >= 1 && int(s) <= 1000000 "
            ": string(s).matches('^(100|[1-9][0-9]?)%$'))",
            "must be numbers of sessions, or percentages such as 10%",
        )
    ],
    "spec.rollout.maintenanceWindow.duration": _duration("1m", "168h"),
}
BACKUP_VALIDATIONS: dict[str, list[Rule]] = {
    "spec": [
        rule(
            _unchanged(BackupSpec, but="exportTo"),
            "is immutable, except exportTo; create another WhatsAppSessionBackup",
        ),
        rule(
            "has(self.sessionName) != has(self.importFrom)",
            "must have either sessionName or importFrom: an import is of its source's session",
        ),
        rule("self.method == 'Archive' || !has(self.key)", "key is that of an Archive"),
        rule(
            "!has(self.importFrom) || (self.method == 'Archive' && !has(self.key))",
            "importFrom is for an Archive, and without a key: that is of the copy",
        ),
        rule(
            "self.method == 'Archive' || !has(self.exportTo) || size(self.exportTo) == 0",
            "exportTo is for an Archive: a VolumeSnapshot cannot leave its namespace",
        ),
    ],
}
