"""The CustomResourceDefinition, made from the models: ``python -m wasession_api.crd`` writes it where it is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from wasession_api import v1alpha1
from wasession_api.base import DURATION, format_duration
from wasession_api.v1alpha1 import WhatsAppSession

ROOT = Path(__file__).resolve().parents[3]
FILES = (
    ROOT / "crds" / "wasession.dev_whatsappsessions.yaml",
    ROOT / "charts" / "wasession-operator" / "files" / "wasession.dev_whatsappsessions.yaml",
)

# Fields of maps whose keys become labels or annotations of the pod.
LABELS = "spec.podTemplate.metadata.labels"
ANNOTATIONS = "spec.podTemplate.metadata.annotations"
NODE_SELECTOR = "spec.podTemplate.spec.nodeSelector"
RESERVED = "k.startsWith('wasession.dev/') || k.startsWith('app.kubernetes.io/')"


def rule(expression: str, message: str) -> dict[str, str]:
    return {"rule": expression, "message": message}


def _unchanged(field: str) -> dict[str, str]:
    """Refuses a change of an optional field; adding and removing it are changes too."""
    return rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} cannot be changed; delete the session and create another",
    )


def _duration(field: str, least: str, most: str) -> list[dict[str, str]]:
    """Bounds of a duration; one that cannot be read is refused by its pattern."""
    bounds = f"duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    return [
        rule(
            f"!self.matches(r'{DURATION}') || ({bounds})", f"{field} must be from {least} to {most}"
        )
    ]


def _amount(field: str, least: str) -> list[dict[str, str]]:
    """The least of a quantity; it catches a forgotten unit, ``1`` for ``1Gi``."""
    least_or_more = f"quantity(self).compareTo(quantity('{least}')) >= 0"
    return [
        rule(
            f"!isQuantity(self) || {least_or_more}",
            f"{field} must be at least {least}; was the unit forgotten?",
        )
    ]


def _keys(words: str) -> dict[str, str]:
    return rule(
        f"self.all(k, k.matches(r'{v1alpha1.LABEL_KEY}'))",
        f"{words} needs valid keys, such as team or example.com/team",
    )


# Validations beyond types and patterns, by the path of the schema that they stand on.
VALIDATIONS: dict[str, list[dict[str, str]]] = {
    "": [
        rule(
            "has(self.spec.clientId) || self.metadata.name.matches(r'^[a-zA-Z0-9_-]{1,64}$')",
            "spec.clientId is needed when metadata.name has dots or more than 64 characters",
        ),
        rule(
            "(has(self.spec.clientId) ? self.spec.clientId : self.metadata.name) == "
            "(has(oldSelf.spec.clientId) ? oldSelf.spec.clientId : oldSelf.metadata.name)",
            "spec.clientId cannot be changed: the login on the volume belongs to it",
        ),
    ],
    "spec.pairing": [
        rule(
            "self.method != 'PairingCode' || has(self.phoneNumber)",
            "phoneNumber is needed with method PairingCode: the code is typed on that phone",
        ),
        rule(
            "self.method != 'QRCode' || !has(self.phoneNumber)",
            "phoneNumber goes with method PairingCode; a QR needs none",
        ),
    ],
    "spec.storage": [_unchanged("storageClassName")],
    "spec.storage.accessMode": [
        rule(
            "self == oldSelf", "accessMode cannot be changed; delete the session and create another"
        )
    ],
    "spec.storage.size": [
        *_amount("size", "64Mi"),
        rule(
            "!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0",
            "size may grow, not shrink",
        ),
    ],
    "spec.browser": [
        rule(
            "!('memory' in self.resources.limits) || !isQuantity(self.shmSize) || "
            "!isQuantity(string(self.resources.limits['memory'])) || "
            "quantity(self.shmSize).compareTo(quantity(string(self.resources.limits['memory']))) <= 0",
            "shmSize counts against the memory limit and cannot be more than it",
        )
    ],
    "spec.browser.shmSize": _amount("shmSize", "1Mi"),
    "spec.browser.extraArgs": [
        rule(
            f"self.all(a, !(a.split('=')[0] in {[*v1alpha1.OWNED_FLAGS]}))",
            "extraArgs cannot have a flag that is the session pod's own: "
            + ", ".join(v1alpha1.OWNED_FLAGS),
        )
    ],
    "spec.browser.resources": [
        rule(
            "['cpu', 'memory'].all(r, !(r in self.limits) || !(r in self.requests) || "
            "!isQuantity(string(self.limits[r])) || !isQuantity(string(self.requests[r])) || "
            "quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)",
            "a request of cpu or memory cannot be more than its limit; the memory limit is 1Gi where none is given",
        ),
        rule(
            "!('memory' in self.limits) || !isQuantity(string(self.limits['memory'])) || "
            "quantity(string(self.limits['memory'])).compareTo(quantity('256Mi')) >= 0",
            "the memory limit must be at least 256Mi; was the unit forgotten?",
        ),
    ],
    **{
        f"spec.browser.resources.{amounts}": [
            rule(
                f"self.all(r, string(self[r]).matches(r'{v1alpha1.QUANTITY}'))",
                v1alpha1.QUANTITY_SENTENCE,
            )
        ]
        for amounts in ("requests", "limits")
    },
    "spec.reconnect": [
        rule(
            f"!self.initialDelay.matches(r'{DURATION}') || !self.maxDelay.matches(r'{DURATION}') || "
            "duration(self.initialDelay) <= duration(self.maxDelay)",
            "initialDelay cannot be longer than maxDelay",
        )
    ],
    "spec.reconnect.initialDelay": _duration("initialDelay", "1s", "1h"),
    "spec.reconnect.maxDelay": _duration("maxDelay", "1s", "1h"),
    "spec.timeouts.initialization": _duration("initialization", "10s", "1h"),
    "spec.timeouts.shutdown": _duration("shutdown", "5s", "10m"),
    "spec.timeouts.logout": _duration("logout", "5s", "10m"),
    LABELS: [
        _keys("labels"),
        rule(
            f"self.all(k, !({RESERVED}))",
            "labels of wasession.dev/ and app.kubernetes.io/ are the operator's own",
        ),
    ],
    ANNOTATIONS: [
        _keys("annotations"),
        rule(
            f"self.all(k, !({RESERVED}))",
            "annotations of wasession.dev/ and app.kubernetes.io/ are the operator's own",
        ),
    ],
    NODE_SELECTOR: [_keys("nodeSelector")],
}
# Lists that a part of the object can own by itself, by the field that names an item; other lists
# are one value.
LIST_KEYS = {"status.conditions": "type", "spec.podTemplate.spec.imagePullSecrets": "name"}

COLUMNS = [
    ("Phase", "string", ".status.phase", 0, "Where the session is in its life."),
    (
        "Valid",
        "boolean",
        ".status.sessionValid",
        0,
        "Whether the volume holds a login that WhatsApp has not ended.",
    ),
    (
        "Last Connected",
        "date",
        ".status.lastConnected",
        0,
        "When the session became Ready the last time.",
    ),
    ("Account", "string", ".status.account.id", 0, "The WhatsApp account that is linked."),
    ("Restored", "boolean", ".status.restored", 0, "Whether it is Ready from a stored login."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since when the session exists."),
    ("Pod", "string", ".status.podName", 1, "Name of the session's pod."),
    ("Node", "string", ".status.nodeName", 1, "Node that the pod runs on."),
    (
        "Reason",
        "string",
        '.status.conditions[?(@.type=="Ready")].reason',
        1,
        "Why it is Ready or not.",
    ),
]


def crd() -> dict[str, Any]:
    """The whole CustomResourceDefinition as plain values."""
    model = WhatsAppSession.model_json_schema(by_alias=True, mode="validation")
    schema = _structural("", model, model["$defs"])
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{v1alpha1.PLURAL}.{v1alpha1.GROUP}"},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": v1alpha1.KIND,
                "listKind": f"{v1alpha1.KIND}List",
                "plural": v1alpha1.PLURAL,
                "singular": v1alpha1.SINGULAR,
                "shortNames": list(v1alpha1.SHORT_NAMES),
            },
            "versions": [
                {
                    "name": v1alpha1.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            "priority": priority,
                            "description": words,
                        }
                        for name, kind, path, priority, words in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


# What a structural schema has in common with a JSON schema, beside type, description and what
# _structural makes itself.
KEYWORDS = (
    "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "required", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
)  # fmt: skip


def _structural(path: str, schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A pydantic JSON schema as a structural schema: references put in place, no null, nothing Kubernetes refuses.

    ``path`` is the field's, such as ``spec.storage.size``; an item of a list ends with ``[]``, a
    value of a map with ``.*``.
    """
    schema = _resolved(schema, definitions)
    result: dict[str, Any] = {"description": schema.get("description", "One of them.")}
    if "type" in schema:
        result["type"] = schema["type"]
    result |= {key: schema[key] for key in KEYWORDS if key in schema}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    rules = VALIDATIONS.get(path, [])
    if "x-pattern-message" in schema:  # the pattern goes into a rule, which can answer in words
        rules = [
            rule(f"self.matches(r'{result.pop('pattern')}')", schema["x-pattern-message"]),
            *rules,
        ]
    if rules:
        result["x-kubernetes-validations"] = rules
    if "properties" in schema:
        result["properties"] = {
            name: _structural(f"{path}.{name}".lstrip("."), child, definitions)
            for name, child in schema["properties"].items()
        }
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(
            f"{path}.*", schema["additionalProperties"], definitions
        )
    if "items" in schema:
        result["items"] = _structural(f"{path}[]", schema["items"], definitions)
        result["x-kubernetes-list-type"] = "map" if path in LIST_KEYS else "atomic"
    if path in LIST_KEYS:
        result["x-kubernetes-list-map-keys"] = [LIST_KEYS[path]]
    if path.startswith("spec"):
        _add_default(schema, result)
    return result


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema without ``anyOf`` null and ``$ref``; what stands beside them wins."""
    for option in schema.get("anyOf", []):
        if option.get("type") != "null":
            schema = {**option, **schema}
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    return schema


def _add_default(schema: dict[str, Any], result: dict[str, Any]) -> None:
    default = schema.get("default")
    if default is None:
        # An object that may be left out is there with the defaults of its fields, so that rules can
        # speak of them.
        if "properties" in schema and not schema.get("required"):
            children = result["properties"].items()
            result["default"] = {
                name: child["default"] for name, child in children if "default" in child
            }
        return
    if schema.get("x-duration"):
        # pydantic writes a default duration in ISO 8601 whatever the field's own serializer says.
        default = format_duration(TypeAdapter(timedelta).validate_python(default))
    result["default"] = default
    if isinstance(default, bool | int | str):  # kubectl explain shows no defaults by itself
        words = str(default).lower() if isinstance(default, bool) else default
        result["description"] += f" Default: {words}."


class _Dumper(yaml.SafeDumper):
    """Writes everything out: a reader of the CRD should not have to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render() -> str:
    """The CRD as the YAML text that is kept in the repository."""
    header = "# Made from the models in crds/src/wasession_api by `make crds`.\n"
    return header + yaml.dump(
        crd(), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True
    )


def main() -> None:
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render())


if __name__ == "__main__":
    main()
