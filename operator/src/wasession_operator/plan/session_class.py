"""What a WhatsAppSessionClass lets its sessions do: pure.

The chart's ValidatingAdmissionPolicies decide the same, where there are any; the operator decides
always, as a session may be older than its class, or than the policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError
from wasession_api.http.problem import describe_error
from wasession_api.kube.manifests import Manifest, amount
from wasession_api.names import ANNOTATION_DEFAULT_CLASS, ANNOTATION_RESUME_ROLLOUT
from wasession_api.v1alpha1 import ClassSpec, Override, Reason

from wasession_operator.effective_spec import EffectiveSpec
from wasession_operator.plan.facts import Violation

# Immutable, and without effect once there is a claim.
OF_NEW_CLAIMS = (Override.STORAGE_CLASS_NAME, Override.STORAGE_ACCESS_MODE)
NO_DEFAULT = (
    "spec.className is not set, and there is no default class: annotate a WhatsAppSessionClass "
    f"with {ANNOTATION_DEFAULT_CLASS}=true."
)


@dataclass(frozen=True)
class SessionClass:
    """A WhatsAppSessionClass as the API server has it."""

    name: str
    uid: str = ""
    generation: int = 0
    created: str = ""
    is_default: bool = False
    stored: Manifest = field(default_factory=dict)  # its spec: only what it sets itself
    spec: ClassSpec = field(default_factory=ClassSpec)
    resume_rollout: str | None = None  # ID of the halt of its rollout that a person has accepted
    error: str | None = None  # what is wrong with the spec, which counts as empty then


def parse_class(obj: Manifest) -> SessionClass:
    """Return the class; fields of a newer version are ignored."""
    metadata, stored = obj["metadata"], obj.get("spec") or {}
    spec, error = ClassSpec(), None
    try:
        spec = ClassSpec.model_validate(stored, extra="ignore")
    except ValidationError as invalid:
        stored, error = {}, describe_error(invalid)
    annotations = metadata.get("annotations") or {}
    return SessionClass(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp", ""),
        is_default=annotations.get(ANNOTATION_DEFAULT_CLASS) == "true",
        resume_rollout=annotations.get(ANNOTATION_RESUME_ROLLOUT),
        stored=stored,
        spec=spec,
        error=error,
    )


def default_class(classes: list[SessionClass]) -> SessionClass | None:
    """Return the default class; of several the newest, then the first by name.

    As for StorageClasses: https://kubernetes.io/docs/concepts/storage/storage-classes/
    """
    defaults = sorted((c for c in classes if c.is_default), key=lambda c: c.name)
    return max(defaults, key=lambda c: c.created, default=None)


def find_violation(
    stored: Manifest,
    namespace: str,
    session_class: SessionClass | None,
    spec: EffectiveSpec,
    sessions_ahead: int = 0,
    *,
    has_claim: bool = False,
) -> Violation | None:
    """Return why a session must not start; None if it may.

    ``stored`` is its own spec, ``spec`` the effective one; ``sessions_ahead`` is the number of
    older sessions of its owner in the namespace. ``has_claim``: its volume claim exists.
    """
    if session_class is None:
        name = stored.get("className")
        message = f"WhatsAppSessionClass {name} does not exist." if name else NO_DEFAULT
        return Violation(Reason.CLASS_NOT_FOUND, message)
    if session_class.error is not None:
        message = f"WhatsAppSessionClass {session_class.name} is invalid: {session_class.error}"
        return Violation(Reason.INVALID_CLASS, message)
    return (
        _check_namespace(namespace, session_class)
        or _check_overrides(stored, session_class, has_claim)
        or _check_amounts(spec, session_class)
        or _check_owner(sessions_ahead, session_class)
    )


def _check_namespace(namespace: str, session_class: SessionClass) -> Violation | None:
    allowed = session_class.spec.allowed_namespaces
    if allowed is None or any(_matches(namespace, pattern) for pattern in allowed):
        return None
    message = (
        f"spec.className: sessions in the namespace {namespace} cannot use the class "
        f"{session_class.name}, which allows the namespaces {', '.join(allowed)}."
    )
    return Violation(Reason.CLASS_NOT_ALLOWED, message)


def _check_overrides(
    stored: Manifest, session_class: SessionClass, has_claim: bool
) -> Violation | None:
    forbidden = forbidden_overrides(stored, session_class.spec)
    if has_claim:
        forbidden = [path for path in forbidden if path not in OF_NEW_CLAIMS]
    if not forbidden:
        return None
    message = (
        f"{', '.join(f'spec.{path}' for path in forbidden)}: the class {session_class.name} does "
        "not let its sessions set it; fields that they can set: "
        f"{', '.join(session_class.spec.overrides) or 'none'}."
    )
    return Violation(Reason.OVERRIDE_NOT_ALLOWED, message)


def _check_amounts(spec: EffectiveSpec, session_class: SessionClass) -> Violation | None:
    limits = session_class.spec.limits
    most = {"storage": limits.storage, "cpu": limits.cpu, "memory": limits.memory}
    for path, kind, quantity in _amounts(spec):
        limit = most[kind]
        if limit is not None and amount(quantity) > amount(limit):
            message = (
                f"spec.{path} is {quantity}: the class {session_class.name} allows {limit} of "
                f"{kind} at most."
            )
            return Violation(Reason.LIMIT_EXCEEDED, message)
    return None


def _check_owner(sessions_ahead: int, session_class: SessionClass) -> Violation | None:
    most = session_class.spec.limits.sessions_per_owner
    if most is None or sessions_ahead < most:
        return None
    message = (
        f"The class {session_class.name} allows an owner {most} sessions in a namespace, and the "
        "owner of this one has as many older ones. Delete one of them."
    )
    return Violation(Reason.LIMIT_EXCEEDED, message)


def forbidden_overrides(stored: Manifest, class_spec: ClassSpec) -> list[str]:
    """Return the fields that a session sets although its class does not let it."""
    return [
        path.value
        for path in Override
        if path not in class_spec.overrides and _value_at(stored, path.value) not in (None, {})
    ]


def _amounts(spec: EffectiveSpec) -> Iterator[tuple[str, str, str]]:
    """Yield what is limited: the field, the name of the limit, and the quantity."""
    yield "storage.size", "storage", spec.storage.size
    yield "browser.shmSize", "memory", spec.browser.shm_size
    resources = spec.browser.resources
    for kind, quantities in (("requests", resources.requests), ("limits", resources.limits)):
        for resource in ("cpu", "memory"):
            if resource in quantities:
                yield f"browser.resources.{kind}.{resource}", resource, quantities[resource]


def _matches(namespace: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return namespace.startswith(pattern[:-1])
    return namespace == pattern


def _value_at(obj: Manifest, path: str) -> object:
    value: object = obj
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
