"""The CustomResourceDefinitions, generated from the models: ``python -m wasession_api.crd``.

That writes the admission policies as well.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter

from wasession_api import core_schemas, v1alpha1
from wasession_api.admission_policy import POLICIES, Policy
from wasession_api.base import PATTERN_MESSAGE, Model, format_duration
from wasession_api.crd_validations import (
    BACKUP_VALIDATIONS,
    CLASS_VALIDATIONS,
    SESSION_VALIDATIONS,
    Rule,
    rule,
)
from wasession_api.v1alpha1 import (
    SessionTemplate,
    WhatsAppSession,
    WhatsAppSessionBackup,
    WhatsAppSessionClass,
)

ROOT = Path(__file__).resolve().parents[3]
CHART_FILES = ROOT / "charts" / "wasession-operator" / "files"
FOLDERS = (ROOT / "crds", CHART_FILES)
Schema = dict[str, Any]

# Lists whose items can have different owners in server-side apply, by the field that identifies an
# item. Other lists are atomic.
LIST_KEYS = {
    "status.conditions": "type",
    "status.delivery": "name",
    "status.usedBy": "operator",
    "status.rollouts": "operator",
    "spec.podTemplate.spec.imagePullSecrets": "name",
    "spec.webhooks": "name",
    "spec.sinks": "name",
    "spec.template.webhooks": "name",
    "spec.template.sinks": "name",
}
# Lists of different values, whose items can have different owners as well.
LIST_SETS = {"spec.exportTo"}
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


DEFAULT_ANNOTATION = r".metadata.annotations['wasession\.dev/is-default-class']"
CLASS_COLUMNS = (
    Column("Default", "string", DEFAULT_ANNOTATION, 0, "Whether sessions without a class use it."),
    Column("Sessions", "integer", ".status.usedBy[*].sessions", 0, "Number of its sessions."),
    Column("Rollout", "string", ".status.rollouts[*].phase", 0, "Phase of the latest rollout."),
    Column("Updated", "integer", ".status.rollouts[*].updated", 0, "Sessions that it has reached."),
    Column("Total", "integer", ".status.rollouts[*].total", 0, "Sessions that it is for."),
    Column("Image", "string", ".spec.image", 1, "Image of its session pods."),
    Column("URL", "string", ".spec.whatsappURL", 1, "Origin of WhatsApp Web."),
    Column("Age", "date", ".metadata.creationTimestamp", 0, "Age of the class."),
    Column("Message", "string", ".status.rollouts[*].message", 1, "What the rollout waits for."),
)
BACKUP_COLUMNS = (
    Column("Phase", "string", ".status.phase", 0, "How far the backup is."),
    Column("Session", "string", ".spec.sessionName", 0, "The session whose login it is."),
    Column("Method", "string", ".spec.method", 0, "How the login is copied."),
    Column("Taken", "date", ".status.takenAt", 0, "Of which moment the copy is."),
    Column("Size", "integer", ".status.size", 0, "Size in bytes."),
    Column("Age", "date", ".metadata.creationTimestamp", 0, "Age of the backup."),
    Column("Reason", "string", ".status.reason", 1, "Why the backup is in its phase."),
    Column("From", "string", ".spec.importFrom.namespace", 1, "Where it is imported from."),
    Column("Exported To", "string", ".spec.exportTo", 1, "Namespaces that may import it."),
)
# PodDisruptionBudgets find out with it how many pods a session should have.
SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}
# Fields for field selectors; at most eight.
SELECTABLE = (
    ".spec.className",
    ".spec.clientId",
    ".spec.owner",
    ".spec.suspend",
    ".status.accountStatus",
    ".status.nodeName",
    ".status.phase",
    ".status.sessionValid",
)
# Of a session, these have no default: what it does not set comes from its class.
FROM_CLASS = tuple(f"spec.{field.alias}" for field in SessionTemplate.model_fields.values())


class Kind(NamedTuple):
    """A kind of the API, and what its definition has beyond the schema of its model."""

    model: type[Model]
    names: dict[str, Any]
    scope: str
    columns: tuple[Column, ...]
    validations: dict[str, list[Rule]]
    subresources: dict[str, Any]
    selectable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.names['plural']}.{v1alpha1.GROUP}"

    @property
    def file_name(self) -> str:
        return f"{v1alpha1.GROUP}_{self.names['plural']}.yaml"


def _names(kind: str, plural: str, singular: str, short: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": singular,
        "shortNames": list(short),
        "categories": [v1alpha1.CATEGORY],
    }


SESSION = Kind(
    WhatsAppSession,
    _names(v1alpha1.KIND, v1alpha1.PLURAL, v1alpha1.SINGULAR, v1alpha1.SHORT_NAMES),
    "Namespaced",
    COLUMNS,
    SESSION_VALIDATIONS,
    {"status": {}, "scale": SCALE},
    SELECTABLE,
)
SESSION_CLASS = Kind(
    WhatsAppSessionClass,
    _names(
        v1alpha1.CLASS_KIND,
        v1alpha1.CLASS_PLURAL,
        v1alpha1.CLASS_SINGULAR,
        v1alpha1.CLASS_SHORT_NAMES,
    ),
    "Cluster",
    CLASS_COLUMNS,
    CLASS_VALIDATIONS,
    {"status": {}},
)
BACKUP = Kind(
    WhatsAppSessionBackup,
    _names(
        v1alpha1.BACKUP_KIND,
        v1alpha1.BACKUP_PLURAL,
        v1alpha1.BACKUP_SINGULAR,
        v1alpha1.BACKUP_SHORT_NAMES,
    ),
    "Namespaced",
    BACKUP_COLUMNS,
    BACKUP_VALIDATIONS,
    {"status": {}},
    (".spec.sessionName", ".status.phase"),
)
KINDS = (SESSION, SESSION_CLASS, BACKUP)


def crd(kind: Kind = SESSION) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.name},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": kind.scope,
            "names": kind.names,
            "versions": [_version(kind)],
        },
    }


def _version(kind: Kind) -> Schema:
    model = kind.model.model_json_schema(by_alias=True, mode="validation")
    schema = _Structural(kind, model).schema("", model)
    return {
        "name": v1alpha1.VERSION,
        "served": True,
        "storage": True,
        "subresources": kind.subresources,
        "selectableFields": [{"jsonPath": path} for path in kind.selectable],
        "additionalPrinterColumns": [column.dump() for column in kind.columns],
        "schema": {"openAPIV3Schema": schema},
    }


class _Structural:
    """Turns the pydantic JSON schemas of a kind into structural ones, without references and null.

    A path is that of a field, such as ``spec.storage.size``; ``[]`` stands for an item of a list,
    ``.*`` for a value of a map.
    """

    def __init__(self, kind: Kind, model: Schema) -> None:
        self._kind = kind
        self._definitions = model["$defs"]
        self._required = set(model.get("required", ()))

    def schema(self, path: str, schema: Schema) -> Schema:
        schema = _resolved(schema, self._definitions)
        result: Schema = {"description": schema.get("description", "An item.")}
        if "x-core-schema" in schema:
            core = core_schemas.read()[schema["x-core-schema"]]
            return core if path.endswith("[]") else core | result
        if "type" in schema:
            result["type"] = schema["type"]
        result |= {key: schema[key] for key in KEYWORDS if key in schema}
        if "const" in schema:
            result["enum"] = [schema["const"]]
        if path.startswith("status") and "enum" in result:
            # A newer operator may write values that this CRD does not know.
            result["description"] += f" Known values: {', '.join(result.pop('enum'))}."
        self._add_validations(path, schema, result)
        self._add_children(path, schema, result)
        if path.startswith("spec"):
            self._add_default(path, schema, result)
        return result

    def _add_validations(self, path: str, schema: Schema, result: Schema) -> None:
        rules = self._kind.validations.get(path, [])
        if PATTERN_MESSAGE in schema:  # a rule has a message, a pattern has none
            pattern = rule(f"self.matches(r'{result.pop('pattern')}')", schema[PATTERN_MESSAGE])
            rules = [pattern, *rules]
        if rules:
            result["x-kubernetes-validations"] = rules

    def _add_children(self, path: str, schema: Schema, result: Schema) -> None:
        if "properties" in schema:
            result["properties"] = {
                name: self.schema(f"{path}.{name}".lstrip("."), child)
                for name, child in schema["properties"].items()
            }
        if isinstance(values := schema.get("additionalProperties"), dict):
            result["additionalProperties"] = self.schema(f"{path}.*", values)
        if "items" in schema:
            result["items"] = self.schema(f"{path}[]", schema["items"])
            kind = "map" if path in LIST_KEYS else "set" if path in LIST_SETS else "atomic"
            result["x-kubernetes-list-type"] = kind
        if path in LIST_KEYS:
            result["x-kubernetes-list-map-keys"] = [LIST_KEYS[path]]

    def _add_default(self, path: str, schema: Schema, result: Schema) -> None:
        default = schema.get("default")
        of_class = self._kind is SESSION and path.startswith(FROM_CLASS)
        fixed = self._kind is not SESSION_CLASS and not of_class
        if default is None:
            # An optional object gets the defaults of its fields, so that rules can refer to them;
            # not a spec that has to be there, as rules require fields of it.
            optional = not schema.get("required") and path not in self._required
            if fixed and "properties" in schema and optional:
                children = result["properties"].items()
                result["default"] = {
                    name: child["default"] for name, child in children if "default" in child
                }
            return
        if schema.get("x-duration"):
            # pydantic writes a default duration in ISO 8601, whatever its serializer does.
            default = format_duration(TypeAdapter(timedelta).validate_python(default))
        if fixed:
            result["default"] = default
        if isinstance(default, bool | int | str):  # kubectl explain does not show defaults
            text = str(default).lower() if isinstance(default, bool) else default
            unless = ", unless the class says otherwise" if of_class else ""
            result["description"] += f" Default: {text}{unless}."


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """Return the schema without ``anyOf`` null and ``$ref``; what stands beside them wins."""
    for option in schema.get("anyOf", []):
        if option.get("type") != "null":
            schema = {**option, **schema}
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    return schema


class _Dumper(yaml.SafeDumper):
    """Write values out in full: a reader should not have to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render(source: Kind | Policy = SESSION) -> str:
    """Return a CRD or a policy as YAML, as it is committed."""
    manifest = crd(source) if isinstance(source, Kind) else source.dump()
    header = "# Generated from the models in crds/src/wasession_api by `make crds`.\n"
    return header + yaml.dump(
        manifest, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True
    )


# The generated files and what they are generated from.
FILES: dict[Path, Kind | Policy] = {
    **{folder / kind.file_name: kind for folder in FOLDERS for kind in KINDS},
    **{CHART_FILES / policy.file_name: policy for policy in POLICIES},
}


def main() -> None:
    for file, source in FILES.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render(source))


if __name__ == "__main__":
    main()
