"""The spec that counts: what the session sets, on top of what its class decides. Pure."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import REVISION_FIELDS, ClassOnly, SessionTemplate, Spec, WhenDeleted


class EffectiveSpec(Spec, ClassOnly):
    """A session's spec together with its class's values. Never written back."""


def _aliases(model: type[Spec] | type[ClassOnly] | type[SessionTemplate]) -> frozenset[str]:
    return frozenset(str(field.alias) for field in model.model_fields.values())


BUILT_IN = SessionTemplate().dump()
SESSION_FIELDS = _aliases(Spec)
TEMPLATE_FIELDS = _aliases(SessionTemplate)
CLASS_FIELDS = _aliases(ClassOnly)
OBJECTS = ("template", "limits")  # of a class's spec, whose fields are merged one by one
LIMITED_RESOURCES = frozenset({"cpu", "memory"})


def merge(base: Any, over: Any) -> Any:
    """Return ``over`` on top of ``base``: objects are merged by key, all else is replaced."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return base if over is None else over
    return base | {key: merge(base.get(key), value) for key, value in over.items()}


def make_effective(
    stored: Manifest, class_name: str | None = None, class_spec: Manifest | None = None
) -> EffectiveSpec:
    """Return the session's spec over its class's template over the built-in defaults.

    Where none of them has a limit of CPU or memory, it is the most that the class allows. Without a
    class, the session's own values count. Fields of newer versions are ignored; invalid values
    raise ``ValidationError``.
    """
    decided = class_spec or {}
    template = _pick(decided.get("template") or {}, TEMPLATE_FIELDS)
    resources = {"limits": _pick(decided.get("limits") or {}, LIMITED_RESOURCES)}
    defaults = merge({"browser": {"resources": resources}}, BUILT_IN)
    spec = merge(merge(defaults, template), _pick(stored, SESSION_FIELDS))
    spec |= _pick(decided, CLASS_FIELDS)
    if class_name is not None:
        spec["className"] = class_name
    effective = EffectiveSpec.read(spec)
    if class_spec is not None and _must_retain(effective, template, decided.get("overrides") or []):
        effective.storage.retention.when_deleted = WhenDeleted.RETAIN
    return effective


def revision_template(stored: Manifest, image: str) -> str:
    """Return the fields of a class's spec that decide what session pods run, as JSON.

    ``image`` is the operator's default.
    """
    decided = {field: value for field, value in stored.items() if field in REVISION_FIELDS}
    return to_json({"image": image} | decided).decode()


def revision_spec(stored: Manifest, template: str) -> Manifest:
    """Return a class's spec with the fields of a revision in place of its own.

    Raise ``ValueError`` for a template that somebody has edited to nonsense.
    """
    decided = from_json(template)
    is_object = isinstance(decided, dict)
    if not is_object or not all(isinstance(decided.get(k), dict | None) for k in OBJECTS):
        raise ValueError("not an object, or a part of it that should be one is none")
    other = {field: value for field, value in stored.items() if field not in REVISION_FIELDS}
    return other | _pick(decided, REVISION_FIELDS)


def _must_retain(effective: EffectiveSpec, template: Manifest, overrides: list[str]) -> bool:
    """Return whether a session deletes its volume against the will of its class."""
    if "storage.retention" in overrides:
        return False
    retention = (template.get("storage") or {}).get("retention") or {}
    decided = retention.get("whenDeleted", WhenDeleted.RETAIN)
    return bool(decided != effective.storage.retention.when_deleted)


def _pick(obj: Manifest, fields: frozenset[str]) -> Manifest:
    return {field: value for field, value in obj.items() if field in fields and value is not None}
