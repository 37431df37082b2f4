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

# Labels and annotations that are the operator's own.
RESERVED = "k.startsWith('wasession.dev/') || k.startsWith('app.kubernetes.io/')"


def rule(expression: str, message: str, **more: str) -> dict[str, str]:
    return {"rule": expression, "message": message, **more}


def unchanged(field: str, words: str) -> dict[str, str]:
    """Refuses a change of an optional field; adding and removing it are changes too."""
    same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return rule(same, f"{words} cannot be changed; delete the session and create another")


def _is_flag(flag: str) -> str:
    return f"a == '{flag}' || a.startsWith('{flag}=')"


# Validations beyond types, by the path of the schema that they stand on.
VALIDATIONS: dict[str, list[dict[str, str]]] = {
    "": [
        rule(
            "size(self.metadata.name) <= 200",
            "metadata.name must be at most 200 characters, so that names can be made from it",
        ),
        rule(
            "has(self.spec.clientId) || self.metadata.name.matches('^[a-zA-Z0-9_-]{1,64}$')",
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
    "spec.storage": [
        unchanged("storageClassName", "storageClassName"),
        rule(
            "self.accessMode == oldSelf.accessMode",
            "accessMode cannot be changed; delete the session and create another",
        ),
    ],
    "spec.storage.size": [
        rule("quantity(self).isGreaterThan(quantity('0'))", "size must be more than nothing"),
        rule("quantity(self).compareTo(quantity(oldSelf)) >= 0", "size may grow, not shrink"),
    ],
    "spec.browser.extraArgs": [
        rule(
            f"self.all(a, !({' || '.join(_is_flag(flag) for flag in v1alpha1.OWNED_FLAGS)}))",
            "extraArgs must not hold a flag that the session pod sets itself: " + ", ".join(v1alpha1.OWNED_FLAGS),
        )
    ],
    "spec.browser.resources": [
        rule(
            "!('memory' in self.limits) || !('memory' in self.requests) || "
            "quantity(string(self.requests['memory'])).compareTo(quantity(string(self.limits['memory']))) <= 0",
            "the memory request must not be more than the memory limit",
        )
    ],
    "spec.reconnect": [
        rule("duration(self.initialDelay) <= duration(self.maxDelay)", "initialDelay must not be longer than maxDelay"),
        rule("duration(self.initialDelay) >= duration('1s')", "initialDelay must be at least 1s"),
        rule("duration(self.maxDelay) <= duration('1h')", "maxDelay must be at most 1h"),
    ],
    "spec.timeouts": [
        rule(
            f"duration(self.{field}) >= duration('{least}') && duration(self.{field}) <= duration('{most}')",
            f"{field} must be from {least} to {most}",
        )
        for field, least, most in (("initialization", "10s", "1h"), ("shutdown", "5s", "10m"), ("logout", "5s", "10m"))
    ],
    "spec.podTemplate.metadata.labels": [
        rule(f"self.all(k, !({RESERVED}))", "labels of wasession.dev/ and app.kubernetes.io/ are the operator's own")
    ],
    "spec.podTemplate.metadata.annotations": [
        rule(
            f"self.all(k, !({RESERVED}))", "annotations of wasession.dev/ and app.kubernetes.io/ are the operator's own"
        )
    ],
}

COLUMNS = [
    ("Phase", "string", ".status.phase", 0, "Where the session is in its life."),
    ("Valid", "boolean", ".status.sessionValid", 0, "Whether the volume holds a login that WhatsApp has not ended."),
    ("Last Connected", "date", ".status.lastConnected", 0, "When the session became Ready the last time."),
    ("Account", "string", ".status.account.id", 0, "The WhatsApp account that is linked."),
    ("Restored", "boolean", ".status.restored", 0, "Whether it is Ready from a stored login."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since when the session exists."),
    ("Pod", "string", ".status.podName", 1, "Name of the session's pod."),
    ("Node", "string", ".status.nodeName", 1, "Node that the pod runs on."),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1, "Why it is Ready or not."),
]


def crd() -> dict[str, Any]:
    """The whole CustomResourceDefinition as plain values."""
    schema = _structural("", WhatsAppSession.model_json_schema(by_alias=True, mode="validation"))
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
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": words}
                        for name, kind, path, priority, words in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _structural(path: str, schema: dict[str, Any], definitions: dict[str, Any] | None = None) -> dict[str, Any]:
    """A pydantic JSON schema as a structural schema: references put in place, no null, nothing Kubernetes refuses."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    description = schema.get("description")
    default = schema.get("default")
    for option in schema.get("anyOf", []):
        if option.get("type") != "null":
            schema = {**schema, **option}
    if "$ref" in schema:
        referred = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**referred, **{key: value for key, value in schema.items() if key != "$ref"}}
    result: dict[str, Any] = {"description": description or schema.get("description")}
    if schema.get("x-kubernetes-int-or-string"):
        result |= {"x-kubernetes-int-or-string": True}
    else:
        result["type"] = schema["type"]
    if not path.startswith("status"):
        if default is not None and schema.get("pattern") == DURATION:
            # pydantic writes a default duration in ISO 8601 whatever the field's own serializer says.
            result["default"] = format_duration(TypeAdapter(timedelta).validate_python(default))
        elif default is not None:
            result["default"] = default
        elif result.get("type") == "object" and "properties" in schema and not schema.get("required") and path:
            result["default"] = {}
    for key in ("enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
                "maxProperties", "required", "x-kubernetes-preserve-unknown-fields"):  # fmt: skip
        if key in schema:
            result[key] = schema[key]
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if path in VALIDATIONS:
        result["x-kubernetes-validations"] = VALIDATIONS[path]
    if "properties" in schema:
        result["properties"] = {
            name: _structural(f"{path}.{name}".lstrip("."), child, definitions)
            for name, child in schema["properties"].items()
        }
        if result.get("default") == {}:  # validations of the object see its default as it stands here
            children = result["properties"].items()
            result["default"] = {name: child["default"] for name, child in children if "default" in child}
    elif isinstance(schema.get("additionalProperties"), dict):
        values = _structural(f"{path}.*", schema["additionalProperties"], definitions)
        result["additionalProperties"] = {**values, "description": values.get("description", "One value.")}
    if "items" in schema:
        items = _structural(f"{path}[]", schema["items"], definitions)
        result["items"] = {**items, "description": items.get("description", "One item.")}
    if path == "status.conditions":
        result |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {key: value for key, value in result.items() if value is not None}


def render() -> str:
    """The CRD as the YAML text that is kept in the repository."""
    header = "# Made from the models in crds/src/wasession_api by `make crds`.\n"
    return header + yaml.safe_dump(crd(), sort_keys=False, width=1000, allow_unicode=True)


def main() -> None:
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render())


if __name__ == "__main__":
    main()
