"""What examples/ has of other projects fits what the chart and the operator expect.

The objects of our own kinds are tried by ``test_documentation.py``.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.operator.conftest import SYSTEM, render
from support.testbed import ROOT
from wasession_api.v1alpha1 import KIND, Spec
from wasession_api.v1alpha1.delivery import SECRET_NAME

EXAMPLES = ROOT / "examples"


def documents(name: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all((EXAMPLES / name).read_text())]


def of_kind(kind: str, name: str) -> list[dict[str, Any]]:
    return [document for document in documents(name) if document["kind"] == kind]


def mounted(manifests: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return the keys that the chart's pods take from each Secret."""
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            continue
        pod = manifest["spec"]["template"]["spec"]
        for volume in pod.get("volumes", []):
            if secret := volume.get("secret"):
                keys = {item["key"] for item in secret.get("items", [])}
                found.setdefault(secret["secretName"], set()).update(keys)
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if ref := variable.get("valueFrom", {}).get("secretKeyRef"):
                    found.setdefault(ref["name"], set()).add(ref["key"])
    return found


def test_external_secrets_of_the_platform_are_those_that_the_chart_reads() -> None:
    made = {
        secret["spec"]["target"]["name"]: {data["secretKey"] for data in secret["spec"]["data"]}
        for secret in of_kind("ExternalSecret", "external-secrets/platform.yaml")
        if secret["metadata"]["namespace"] == SYSTEM
    }
    named = "masterKey.existingSecret=wasession-master-key"
    named += ",gateway.enabled=true,gateway.jwt.existingSecret=wasession-jwt"
    manifests = render(None, "--set", named)
    read = {name: keys for name, keys in mounted(manifests).items() if name in made}
    assert made == read
    assert not [m for m in manifests if m["kind"] == "Secret"], "nothing is generated"


def test_external_secrets_of_a_team_are_those_that_its_session_names() -> None:
    made = {
        secret["spec"]["target"]["name"]: {data["secretKey"] for data in secret["spec"]["data"]}
        for secret in of_kind("ExternalSecret", "external-secrets/team.yaml")
    }
    [session] = of_kind(KIND, "external-secrets/team.yaml")
    spec = Spec.model_validate(session["spec"])
    assert spec.browser is not None
    assert spec.browser.proxy_secret_ref is not None
    keys = {webhook.signing_key for webhook in spec.webhooks}
    keys |= {sink.nats.credentials or "" for sink in spec.sinks}
    assert made == {
        SECRET_NAME: keys,
        spec.browser.proxy_secret_ref.name: {"server", "username", "password"},
    }


def test_the_route_attaches_to_the_gateway() -> None:
    [gateway] = documents("gateway-api/gateway.yaml")
    manifests = render(None, "-f", str(EXAMPLES / "gateway-api/values.yaml"))
    [route] = [m for m in manifests if m["kind"] == "HTTPRoute"]
    assert route["apiVersion"] == gateway["apiVersion"]
    [parent] = route["spec"]["parentRefs"]
    named = {key: gateway["metadata"][key] for key in ("name", "namespace")}
    assert named.items() <= parent.items()
    [listener] = [
        one for one in gateway["spec"]["listeners"] if one["name"] == parent["sectionName"]
    ]
    [hostname] = route["spec"]["hostnames"]
    assert fnmatch.fnmatch(hostname, listener["hostname"])
    allowed = listener["allowedRoutes"]["namespaces"]["selector"]["matchLabels"]
    assert allowed == {"kubernetes.io/metadata.name": route["metadata"]["namespace"]}
    services = {m["metadata"]["name"] for m in manifests if m["kind"] == "Service"}
    assert {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]} <= (
        services
    )


def test_a_session_publishes_to_the_stream() -> None:
    [stream] = documents("nats/stream.yaml")
    [session] = of_kind(KIND, "nats/sessions.yaml")
    [sink] = Spec.model_validate(session["spec"]).sinks
    assert sink.nats.stream == stream["spec"]["name"]
    subject = sink.nats.subject.format(namespace="sales", session="sales-eu", kind="message")
    patterns = [pattern.replace(">", "*") for pattern in stream["spec"]["subjects"]]
    assert any(fnmatch.fnmatch(subject, pattern) for pattern in patterns)


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda file: file.name)
def test_an_example_says_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")
