"""The part of values.schema.json that Kubernetes prescribes: what is copied into its objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from support.chart import openapi
from support.testbed import CHART

FILE = CHART / "values.schema.json"
OWN = "io.k8s."
# By the document that has them, /openapi/v3/….
KINDS = {
    "api/v1": (
        "io.k8s.api.core.v1.Affinity",
        "io.k8s.api.core.v1.EnvVar",
        "io.k8s.api.core.v1.LocalObjectReference",
        "io.k8s.api.core.v1.ResourceRequirements",
        "io.k8s.api.core.v1.Toleration",
        "io.k8s.api.core.v1.TopologySpreadConstraint",
        "io.k8s.api.core.v1.Volume",
        "io.k8s.api.core.v1.VolumeMount",
    ),
    "apis/networking.k8s.io/v1": ("io.k8s.api.networking.v1.NetworkPolicyPeer",),
}


def render(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the file with the types of the API server; ``documents`` is keyed as ``KINDS``."""
    schema = json.loads(FILE.read_text())
    types = openapi.definitions(documents.values())
    roots = (kind for kinds in KINDS.values() for kind in kinds)
    schema["definitions"] = {
        name: definition
        for name, definition in schema["definitions"].items()
        if not name.startswith(OWN)
    } | openapi.with_references(types, roots)
    return json.dumps(schema, indent=2) + "\n"
