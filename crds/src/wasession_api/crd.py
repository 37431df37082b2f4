"""The CustomResourceDefinition, generated from the models: ``python -m wasession_api.crd``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter

from wasession_api import v1alpha1
from wasession_api.base import PATTERN_MESSAGE, format_duration
from wasession_api.crd_validations import VALIDATIONS, rule
from wasession_api.v1alpha1 import WhatsAppSession

ROOT = Path(__file__).resolve().parents[3]
FILES = (
    ROOT / "crds" / "wasession.dev_whatsappsessions.yaml",
    ROOT / "charts" / "wasession-operator" / "files" / "wasession.dev_whatsappsessions.yaml",
)
Schema = dict[str, Any]

# Lists whose items can have different owners in server-side apply, by the field that identifies an
# item. Other lists are atomic.
LIST_KEYS = {"status.conditions": "type", "spec.podTemplate.spec.imagePullSecrets": "name"}
# The keywords of a structural schema that are the same in a JSON schema.
KEYWORDS = (
    "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "maxProperties", "required", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)  # fmt: skip


class Column(NamedTuple):
    """A column of ``kubectl get``; with priority 1 only of ``-o wide``."""

    name: str
    type: str
    json_path: str
    priority: int
    description: str

    def dump(self) -> Schema:
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "priority": self.priority,
            "description": self.description,
        }


READY_REASON = '.status.conditions[?(@.type=="Ready")].reason'
COLUMNS = (
    Column("Phase", "string", ".status.phase", 0, "Phase of the session's life cycle."),
    Column("Valid", "boolean", ".status.sessionValid", 0, "Whether the login is valid."),
    Column("Last Connected", "date", ".status.lastConnected", 0, "When it became Ready last."),
    Column("Account", "string", ".status.account.id", 0, "The linked WhatsApp account."),
    Column("Restored", "boolean", ".status.restored", 0, "Whether it is Ready without a new code."),
    Column("Age", "date", ".metadata.creationTimestamp", 0, "Age of the session."),
    Column("Pod", "string", ".status.podName", 1, "Name of the session's pod."),
    Column("Node", "string", ".status.nodeName", 1, "Node that runs the pod."),
    Column("Reason", "string", READY_REASON, 1, "Why the session is Ready or not."),
)


# PodDisruptionBudgets find out with it how many pods a session should have.
SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}
# Fields for field selectors; at most eight.
SELECTABLE = (
    ".spec.clientId",
    ".spec.owner",
    ".spec.suspend",
    ".status.accountStatus",
    ".status.nodeName",
    ".status.phase",
    ".status.podName",
    ".status.sessionValid",
)


def crd() -> Schema:
    """Return the CustomResourceDefinition."""
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
            "versions": [_version()],
        },
    }


def _version() -> Schema:
    model = WhatsAppSession.model_json_schema(by_alias=True, mode="validation")
    return {
        "name": v1alpha1.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": SCALE},
        "selectableFields": [{"jsonPath": path} for path in SELECTABLE],
        "additionalPrinterColumns": [column.dump() for column in COLUMNS],
        "schema": {"openAPIV3Schema": _structural("", model, model["$defs"])},
    }


def _structural(path: str, schema: Schema, definitions: Schema) -> Schema:
    """Return a pydantic JSON schema as a structural schema, without references and null.

    ``path`` is the field's, such as ``spec.storage.size``; ``[]`` stands for an item of a list,
    ``.*`` for a value of a map.
    """
    schema = _resolved(schema, definitions)
    result: Schema = {"description": schema.get("description", "An item.")}
    if "type" in schema:
        result["type"] = schema["type"]
    result |= {key: schema[key] for key in KEYWORDS if key in schema}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if path.startswith("status") and "enum" in result:
        # A newer operator may write values that this CRD does not know.
        result["description"] += f" Known values: {', '.join(result.pop('enum'))}."
    _add_validations(path, schema, result)
    _add_children(path, schema, definitions, result)
    if path.startswith("spec"):
        _add_default(schema, result)
    return result


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """Return the schema without ``anyOf`` null and ``$ref``; what stands beside them wins."""
    for option in schema.get("anyOf", []):
        if option.get("type") != "null":
            schema = {**option, **schema}
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    return schema


def _add_validations(path: str, schema: Schema, result: Schema) -> None:
    rules = VALIDATIONS.get(path, [])
    if PATTERN_MESSAGE in schema:  # a rule has a message, a pattern has none
        rules = [rule(f"self.matches(r'{result.pop('pattern')}')", schema[PATTERN_MESSAGE]), *rules]
    if rules:
        result["x-kubernetes-validations"] = rules


def _add_children(path: str, schema: Schema, definitions: Schema, result: Schema) -> None:
    if "properties" in schema:
        result["properties"] = {
            name: _structural(f"{path}.{name}".lstrip("."), child, definitions)
            for name, child in schema["properties"].items()
        }
    if isinstance(values := schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(f"{path}.*", values, definitions)
    if "items" in schema:
        result["items"] = _structural(f"{path}[]", schema["items"], definitions)
        result["x-kubernetes-list-type"] = "map" if path in LIST_KEYS else "atomic"
    if path in LIST_KEYS:
        result["x-kubernetes-list-map-keys"] = [LIST_KEYS[path]]


def _add_default(schema: Schema, result: Schema) -> None:
    default = schema.get("default")
    if default is None:
        # An optional object gets the defaults of its fields, so that rules can refer to them.
        if "properties" in schema and not schema.get("required"):
            children = result["properties"].items()
            result["default"] = {
                name: child["default"] for name, child in children if "default" in child
            }
        return
    if schema.get("x-duration"):
        # pydantic writes a default duration in ISO 8601, whatever the field's serializer does.
        default = format_duration(TypeAdapter(timedelta).validate_python(default))
    result["default"] = default
    if isinstance(default, bool | int | str):  # kubectl explain does not show defaults
        text = str(default).lower() if isinstance(default, bool) else default
        result["description"] += f" Default: {text}."


class _Dumper(yaml.SafeDumper):
    """Write values out in full: a reader should not have to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render() -> str:
    """Return the CRD as YAML, as it is committed."""
    header = "# Generated from the models in crds/src/wasession_api by `make crds`.\n"
    return header + yaml.dump(
        crd(), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True
    )


def main() -> None:
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render())


if __name__ == "__main__":
    main()
