"""The ValidatingAdmissionPolicies, which check what the CRD of sessions cannot see.

One holds a session to its WhatsAppSessionClass, the other to its user. The chart adds names and
bindings; ``wasession_api.crd`` writes the files that it reads. The operator decides the same about
classes in Python, for clusters without policies and for sessions that are older than their class.

In CEL, ``has()`` fails when what contains the field is absent, hence the variables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wasession_api import v1alpha1
from wasession_api.names import ANNOTATION_DEFAULT_CLASS
from wasession_api.v1alpha1 import Override

Manifest = dict[str, Any]
ASSIGN_OWNER = "assign-owner"  # the verb that lets a user write any spec.owner
DEFAULT = f"'{ANNOTATION_DEFAULT_CLASS}'"


class Policy(NamedTuple):
    """A policy and the file of the chart that has it."""

    file_name: str
    spec: Manifest

    def dump(self) -> Manifest:
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "spec": self.spec,
        }


def _field(root: str, path: str) -> str:
    """Return CEL that says whether a field of ``root`` is set."""
    names = path.split(".")
    return " && ".join(
        f"has({'.'.join([root, *names[:depth]])})" for depth in range(1, len(names) + 1)
    )


def _variable(name: str, expression: str) -> Manifest:
    return {"name": name, "expression": expression}


def _validation(expression: str, message: str, reason: str = "Invalid") -> Manifest:
    """Return a rule; ``message`` is CEL as well."""
    return {"expression": expression, "messageExpression": message, "reason": reason}


# --- what the class allows ------------------------------------------------------------------------

VARIABLES = [
    _variable("session", "has(object.spec) ? object.spec : dyn({})"),
    # Each rule is evaluated with each class, of which only the session's counts.
    _variable(
        "applies",
        "has(variables.session.className) ? "
        "variables.session.className == params.metadata.name : "
        f"has(params.metadata.annotations) && {DEFAULT} in params.metadata.annotations && "
        f"params.metadata.annotations[{DEFAULT}] == 'true'",
    ),
    _variable("class", "has(params.spec) ? params.spec : dyn({})"),
    _variable(
        "namespaces",
        "has(variables.class.allowedNamespaces) ? variables.class.allowedNamespaces : dyn(['*'])",
    ),
    _variable("overrides", "has(variables.class.overrides) ? variables.class.overrides : dyn([])"),
    _variable(
        "overridable",
        "size(variables.overrides) == 0 ? 'none' : variables.overrides.join(', ')",
    ),
    _variable("limits", "has(variables.class.limits) ? variables.class.limits : dyn({})"),
    _variable(
        "resources",
        f"{_field('variables.session', 'browser.resources')} ? "
        "variables.session.browser.resources : dyn({})",
    ),
]
NAMESPACE = _validation(
    "!variables.applies || variables.namespaces.exists(pattern, "
    "pattern == request.namespace || (pattern.endsWith('*') && "
    "request.namespace.startsWith(pattern.substring(0, size(pattern) - 1))))",
    "'spec.className: sessions in the namespace ' + request.namespace + ' cannot use the class ' + "
    "params.metadata.name + ', which allows the namespaces ' + variables.namespaces.join(', ')",
    "Forbidden",
)
# The CRD does not let them be changed or removed. A class that no longer allows them would
# otherwise forbid every later change of the session.
IMMUTABLE = (Override.STORAGE_CLASS_NAME, Override.STORAGE_ACCESS_MODE)


def _override(field: Override) -> Manifest:
    """Return the rule of a field; an empty object sets nothing."""
    unchanged = (
        f" || (oldObject != null && {_field('oldObject', f'spec.{field}')} && "
        f"variables.session.{field} == oldObject.spec.{field})"
    )
    return _validation(
        f"!variables.applies || '{field}' in variables.overrides || "
        f"!({_field('variables.session', field)}) || variables.session.{field} == dyn({{}})"
        f"{unchanged if field in IMMUTABLE else ''}",
        f"'spec.{field}: the class ' + params.metadata.name + ' does not let its sessions set it; "
        "fields that they can set: ' + variables.overridable",
        "Forbidden",
    )


def _exceeds(path: str, limit: str) -> str:
    return (
        f"'spec.{path}: the class ' + params.metadata.name + ' allows ' + "
        f"variables.limits.{limit} + ' of {limit} at most'"
    )


def _size_limit(path: str, limit: str) -> Manifest:
    return _validation(
        f"!variables.applies || !has(variables.limits.{limit}) || "
        f"!({_field('variables.session', path)}) || "
        f"quantity(variables.session.{path}).compareTo(quantity(variables.limits.{limit})) <= 0",
        _exceeds(path, limit),
    )


def _resource_limit(kind: str, resource: str) -> Manifest:
    amount = f"variables.resources.{kind}['{resource}']"
    return _validation(
        f"!variables.applies || !has(variables.limits.{resource}) || "
        f"!has(variables.resources.{kind}) || !('{resource}' in variables.resources.{kind}) || "
        f"quantity(string({amount})).compareTo(quantity(variables.limits.{resource})) <= 0",
        _exceeds(f"browser.resources.{kind}.{resource}", resource),
    )


CLASS_POLICY = Policy(
    "admission-policy-class.yaml",
    {
        # For half a minute after its start an API server may not know the kind of the params. The
        # operator starts no session that its class does not allow, so sessions can be changed then.
        "failurePolicy": "Ignore",
        "paramKind": {"apiVersion": v1alpha1.API_VERSION, "kind": v1alpha1.CLASS_KIND},
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [v1alpha1.GROUP],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [v1alpha1.PLURAL],
                }
            ]
        },
        # The class may have changed since. Finalizers could not be removed otherwise.
        "matchConditions": [
            {
                "name": "changes-the-spec",
                "expression": "oldObject == null || !has(object.spec) || !has(oldObject.spec) || "
                "object.spec != oldObject.spec",
            },
            {"name": "stays", "expression": "!has(object.metadata.deletionTimestamp)"},
        ],
        "variables": VARIABLES,
        "validations": [
            NAMESPACE,
            *(_override(field) for field in Override),
            _size_limit("storage.size", "storage"),
            _size_limit("browser.shmSize", "memory"),  # it counts towards the memory
            *(
                _resource_limit(kind, resource)
                for kind in ("requests", "limits")
                for resource in ("cpu", "memory")
            ),
        ],
    },
)


# --- who the owner is -----------------------------------------------------------------------------

OWNER_POLICY = Policy(
    "admission-policy-owner.yaml",
    {
        "failurePolicy": "Fail",
        "matchConstraints": CLASS_POLICY.spec["matchConstraints"],
        "matchConditions": [
            {
                "name": "changes-the-owner",
                "expression": "({}) != ({})".format(
                    *(
                        f"{which} != null && {_field(which, 'spec.owner')} ? "
                        f"{which}.spec.owner : ''"
                        for which in ("object", "oldObject")
                    )
                ),
            }
        ],
        "variables": [
            _variable("owner", f"{_field('object', 'spec.owner')} ? object.spec.owner : ''"),
        ],
        # Whoever names the owner of an existing session decides who gets its login, even if it has
        # had no owner so far.
        "validations": [
            _validation(
                "(oldObject == null && variables.owner == request.userInfo.username) || "
                f"authorizer.group('{v1alpha1.GROUP}').resource('{v1alpha1.PLURAL}')"
                f".namespace(request.namespace).check('{ASSIGN_OWNER}').allowed()",
                "'spec.owner: ' + request.userInfo.username + (oldObject != null ? "
                "' cannot change the owner of a session' : "
                "' can set only ' + request.userInfo.username + ' as the owner') + "
                f"' without the verb {ASSIGN_OWNER} on {v1alpha1.PLURAL}'",
                "Forbidden",
            )
        ],
    },
)
POLICIES = (CLASS_POLICY, OWNER_POLICY)
