"""The chart can be upgraded, restricted to namespaces and uninstalled without losing a session."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.testbed import CHART, SYSTEM, Testbed
from wasession_api.v1alpha1 import Spec
from wasession_gateway.settings import Settings

KUBERNETES = "1.34.0"
SERVED, OTHER = "e2e-served", "e2e-other"


@pytest.fixture
def namespaces(bed: Testbed) -> Iterator[None]:
    for name in (SERVED, OTHER):
        bed.cluster.kubectl("create", "namespace", name)
    yield
    bed.install_operator()  # for all namespaces again
    for name in (SERVED, OTHER):
        bed.cluster.kubectl("delete", "namespace", name)


def upgrade(bed: Testbed, values: str) -> None:
    """Upgrade the release, with these values besides those that it has."""
    release = ("upgrade", "wasession", str(CHART), "--namespace", SYSTEM, "--reuse-values")
    bed.helm(*release, "--set", values, "--wait", "--timeout", "120s")


def test_an_upgrade_changes_a_setting(bed: Testbed) -> None:
    upgrade(bed, "settings.restorationDelay=1s")
    deployment = json.loads(bed.cluster.kubectl("-n", SYSTEM, "get", "deployments", "-o", "json"))[
        "items"
    ][0]
    environment = {
        e["name"]: e.get("value")
        for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environment["WASESSION_RESTORATION_DELAY"] == "1s"


def test_helm_test_asks_the_replicas(bed: Testbed) -> None:
    bed.install_operator()
    output = bed.helm("test", "wasession", "--namespace", SYSTEM, "--timeout", "180s")
    assert output.count("Succeeded") == 2, "the Service and the pod"
    left = bed.cluster.kubectl("-n", SYSTEM, "get", "services,pods", "-o", "name").split()
    assert not [name for name in left if "-test" in name]


def test_it_may_serve_some_namespaces_only(bed: Testbed, namespaces: None, tmp_path: Path) -> None:
    """Besides a Role in each of them, it then needs only to read classes and Leases."""
    narrow = (
        f"watchNamespaces={{{SERVED}}},rbac.nodes=false,rbac.deletedNamespaces=false,"
        "rbac.aggregate=false"
    )
    upgrade(bed, narrow)
    role = bed.cluster.kubectl(
        "get", "clusterrole", f"{SYSTEM}:wasession-operator", "-o", "jsonpath={.rules[*].resources}"
    )
    assert role == '["whatsappsessionclasses"] ["whatsappsessionclasses/status"] ["leases"]'
    sessions = [bed.session("suspended", namespace) for namespace in (OTHER, SERVED)]
    manifest = {
        "apiVersion": "wasession.dev/v1alpha1",
        "kind": "WhatsAppSession",
        "metadata": {"name": "suspended"},
        "spec": {"suspend": True},
    }
    path = tmp_path / "session.yaml"
    path.write_text(yaml.safe_dump(manifest))
    for session in sessions:
        session.apply(path)
    sessions[1].wait_phase("Suspended")
    assert sessions[0].status == {}
    sessions[1].kubectl("delete", "wasession", "suspended", "--timeout=60s")


def test_the_sessions_outlive_an_uninstall(bed: Testbed) -> None:
    bed.helm("uninstall", "wasession", "--namespace", SYSTEM, "--wait", "--no-hooks")
    assert bed.cluster.kubectl("-n", SYSTEM, "get", "deployments", "-o", "name") == ""
    assert "whatsappsessions" in bed.cluster.kubectl("get", "crds", "-o", "name")
    secret = ("-n", SYSTEM, "get", "secret", "wasession-operator-master-key", "-o", "yaml")
    key = bed.cluster.kubectl(*secret)
    bed.install_operator()
    assert bed.cluster.kubectl(*secret) == key, "the tokens of all session pods would change"


def test_the_default_class_is_adopted_and_changed_by_an_upgrade(bed: Testbed) -> None:
    """The first installation creates it in a hook, as its CRD is not there before.

    Helm adopts it with the next upgrade, but would not change it then: so that one may replace it.
    """

    def default() -> dict[str, Any]:
        output = bed.cluster.kubectl("get", "wasc", "default", "-o", "json")
        return dict(json.loads(output))

    upgrade(bed, "defaultClass.spec.limits.memory=2Gi")
    assert default()["spec"]["limits"] == {"memory": "2Gi"}
    uid = default()["metadata"]["uid"]
    bed.install_operator()
    assert "limits" not in default()["spec"]
    assert default()["metadata"]["uid"] == uid, "it was replaced"


# --- rendering ------------------------------------------------------------------------------------


def render(bed: Testbed, *values: str) -> list[dict[str, Any]]:
    arguments = [argument for value in values for argument in ("--set", value)]
    rendered = bed.helm(
        "template",
        "x",
        str(CHART),
        "--namespace",
        "system",
        "--kube-version",
        KUBERNETES,
        "--skip-tests",
        *arguments,
    )
    return [document for document in yaml.safe_load_all(rendered) if document]


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["watchNamespaces={a,b}"],
        ["rbac.create=false", "serviceAccount.create=false", "serviceAccount.name=mine"],
        ["metrics.service.enabled=true"],
        ["metrics.serviceMonitor.enabled=true"],
        ["crds.enabled=false"],
        ["networkPolicy.enabled=false"],
        ["admissionPolicy.enabled=false", "uninstallGuard.enabled=false"],
        ["defaultClass.create=false"],
        ["masterKey.existingSecret=mine"],
        ["replicas=1"],
        ["replicas=4", "shards=4"],
    ],
)
def test_every_choice_of_the_operator_renders(bed: Testbed, values: list[str]) -> None:
    documents = render(bed, *values)
    kinds = [document["kind"] for document in documents]
    assert kinds.count("Deployment") == 1
    assert ("CustomResourceDefinition" in kinds) == ("crds.enabled=false" not in values)
    roles = {d["metadata"]["namespace"] for d in documents if d["kind"] == "Role"}
    # "default" has the Events about classes, which are in no namespace.
    watched = {"a", "b", "default"} if "watchNamespaces={a,b}" in values else set()
    assert roles == ({"system", *watched} if "rbac.create=false" not in values else set())
    assert ("PodDisruptionBudget" in kinds) == ("replicas=1" not in values)
    assert "NetworkPolicy" not in kinds, "the operator makes them"
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert (policies <= set(kinds)) == ("admissionPolicy.enabled=false" not in values)
    assert ("WhatsAppSessionClass" in kinds) == ("defaultClass.create=false" not in values)
    assert ("Secret" in kinds) == ("masterKey.existingSecret=mine" not in values)
    assert ("ServiceMonitor" in kinds) == ("metrics.serviceMonitor.enabled=true" in values)
    assert ("Service" in kinds) == any("metrics" in value for value in values)


def test_the_operator_has_the_same_rights_in_its_namespaces(bed: Testbed) -> None:
    roles = {
        d["metadata"]["namespace"]: d["rules"]
        for d in render(bed, "watchNamespaces={a,b}")
        if d["kind"] == "Role"
    }
    assert roles["a"] == roles["b"]
    cluster = next(d for d in render(bed, "rbac.aggregate=false") if d["kind"] == "ClusterRole")
    elsewhere = ("nodes", "leases", "whatsappsessionclasses", "whatsappsessionclasses/status")
    assert roles["a"] == [
        rule for rule in cluster["rules"] if rule["resources"][0] not in elsewhere
    ]


GATEWAY = "gateway.enabled=true"
JWKS = "gateway.jwt.jwksUrl=https://issuer.example/keys"


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        (
            [],
            {
                "Deployment",
                "Service",
                "Secret",
                "Role",
                "RoleBinding",
                "ServiceAccount",
                "PodDisruptionBudget",
                "NetworkPolicy",
            },
        ),
        (
            [
                "gateway.ingress.enabled=true",
                "gateway.ingress.host=wa.example",
                "gateway.ingress.tlsSecret=wa",
                "gateway.settings.trustedProxies=1",
            ],
            {"Ingress"},
        ),
        (
            [
                "gateway.httpRoute.enabled=true",
                "gateway.httpRoute.parentRefs[0].name=public",
                "gateway.settings.trustedProxies=1",
            ],
            {"HTTPRoute"},
        ),
        (["metrics.serviceMonitor.enabled=true"], {"ServiceMonitor"}),
    ],
)
def test_every_choice_of_the_gateway_renders(
    bed: Testbed, values: list[str], kinds: set[str]
) -> None:
    without, with_it = (
        {(d["kind"], d["metadata"]["name"]) for d in render(bed, *v)}
        for v in (values, [GATEWAY, *values])
    )
    added = with_it - without
    assert all("gateway" in name for _, name in added)
    assert kinds <= {kind for kind, _ in added}


@pytest.mark.parametrize(
    ("choice", "without"),
    [
        ("gateway.podDisruptionBudget.enabled=false", "PodDisruptionBudget"),
        ("gateway.jwt.existingSecret=mine", "Secret"),
        (f"{JWKS},gateway.jwt.audience=wasession", "Secret"),
        ("rbac.create=false", "Role"),
    ],
)
def test_what_the_gateway_is_not_to_have(bed: Testbed, choice: str, without: str) -> None:
    default, chosen = (
        {d["kind"] for d in render(bed, *values) if "gateway" in d["metadata"]["name"]}
        for values in ([GATEWAY], [GATEWAY, choice])
    )
    assert without in default
    assert without not in chosen


def test_the_gateway_verifies_tokens_with_what_it_is_given(bed: Testbed) -> None:
    for values, secret in (
        ([], "x-wasession-gateway-jwt"),
        (["gateway.jwt.existingSecret=mine"], "mine"),
        ([JWKS, "gateway.jwt.audience=wasession"], None),
        ([JWKS, "gateway.jwt.audience=wasession", "gateway.jwt.existingSecret=mine"], "mine"),
    ):
        environment = {
            variable["name"]: variable for variable in container(bed, "gateway", *values)["env"]
        }
        reference = (
            environment["JWT_SECRET"]["valueFrom"]["secretKeyRef"]
            if "JWT_SECRET" in environment
            else None
        )
        assert reference == (secret and {"name": secret, "key": "jwt-secret"}), values
        assert ("WASESSION_JWKS_URL" in environment) == any("jwksUrl" in value for value in values)


def test_the_gateway_reads_its_sessions_where_they_are(bed: Testbed) -> None:
    documents = render(bed, GATEWAY, "gateway.namespace=sales")
    roles = [d for d in documents if d["kind"] == "Role" and "gateway" in d["metadata"]["name"]]
    [role] = [role for role in roles if role["metadata"]["namespace"] == "sales"]
    assert {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]} in role["rules"]


def test_every_setting_of_the_gateway_is_one_that_it_knows(
    bed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    monkeypatch.setenv("WASESSION_NAMESPACE", "system")
    defaults = Settings()
    chosen = [
        "corsOrigins[0]=https://a.example",
        "sessionTemplate.storage.size=2Gi",
        "maxUpload=134217728",
    ]
    variables = container(bed, "gateway", *(f"gateway.settings.{value}" for value in chosen))["env"]
    for variable in variables:
        monkeypatch.setenv(variable["name"], variable.get("value", "x" * 32))
    settings = Settings()
    assert {
        variable["name"].removeprefix("WASESSION_").lower() for variable in variables
    } <= Settings.model_fields.keys()
    assert settings == defaults.model_copy(
        update={
            "cors_origins": ["https://a.example"],
            "session_template": Spec.model_validate({"storage": {"size": "2Gi"}}),
            "max_upload": 128 * 2**20,
        }
    )


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_the_pods_are_restricted(bed: Testbed, component: str) -> None:
    """They meet the Pod Security Standard of that name."""
    pod = deployment(bed, component)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(bed, component)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def deployment(bed: Testbed, component: str, *values: str) -> dict[str, Any]:
    [document] = [
        document
        for document in render(bed, GATEWAY, *values)
        if document["kind"] == "Deployment"
        and document["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == component
    ]
    return document


def container(bed: Testbed, component: str, *values: str) -> dict[str, Any]:
    [only] = deployment(bed, component, *values)["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_an_unknown_value_is_refused(bed: Testbed) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        render(bed, "imagee.tag=x")


def test_lint(bed: Testbed) -> None:
    assert "0 chart(s) failed" in bed.helm("lint", str(CHART))
