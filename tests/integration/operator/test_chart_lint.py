"""The chart's manifests are valid, whatever its schema accepts, and follow common advice."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from integration.operator.conftest import SYSTEM
from support.chart import programs, strategies
from support.cluster import binaries
from support.fakes.world import Environment
from support.testbed import CHART

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
EXCEPTIONS = Path(programs.__file__).with_name("kube_score.yaml")
# The groups of what the chart renders.
DOCUMENTS = (
    "api/v1",
    "apis/admissionregistration.k8s.io/v1",
    "apis/apiextensions.k8s.io/v1",
    "apis/apps/v1",
    "apis/networking.k8s.io/v1",
    "apis/policy/v1",
    "apis/rbac.authorization.k8s.io/v1",
    "apis/wasession.dev/v1alpha1",
)
# The API server alone judges these: its CRDs have more rules than a chart could repeat.
JUDGED_BY_CRD = ("defaultClass.spec", "gateway.settings.sessionTemplate")
EXAMPLES = int(os.environ.get("CHART_EXAMPLES", "50"))
EVERYTHING: dict[str, Any] = {
    "watchNamespaces": ["a"],
    "backups": {"store": "s3://bucket/logins", "existingSecret": "store"},
    "metrics": {"serviceMonitor": {"enabled": True}},
    "gateway": {
        "enabled": True,
        "namespace": "a",
        "ingress": {"enabled": True, "host": "wa.example", "tlsSecret": "wa"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "settings": {"trustedProxies": 1},
        "networkPolicy": {"metricsFrom": [{"podSelector": {}}]},
    },
}


def helm(verb: str, values: Any, *options: str) -> subprocess.CompletedProcess[str]:
    command = [binaries.tool("helm"), verb, *options, str(CHART)]
    command += [
        "--namespace",
        SYSTEM,
        "--values",
        "-",
        "--kube-version",
        binaries.kubernetes_version(),
    ]
    document = json.dumps(values)
    return subprocess.run(command, input=document, capture_output=True, text=True, check=False)


def rendered(values: Any) -> str:
    done = helm("template", values, "--skip-schema-validation")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def chart_programs() -> None:
    """Build kubeconform and kube-score, if nobody has done so before."""
    programs.build()


@pytest.fixture(scope="module")
async def kubeconform(
    environment: Environment, chart_programs: None, tmp_path_factory: pytest.TempPathFactory
) -> programs.Kubeconform:
    documents = [await environment.api.call("GET", f"/openapi/v3/{path}") for path in DOCUMENTS]
    return programs.Kubeconform(tmp_path_factory.mktemp("schemas"), documents)


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_helm_lint(values: dict[str, Any]) -> None:
    done = helm("lint", values, "--strict")
    assert "0 chart(s) failed" in done.stdout, done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_kubeconform(kubeconform: programs.Kubeconform, values: dict[str, Any]) -> None:
    assert kubeconform.problems(rendered(values)) == []


def test_kubeconform_finds_a_wrong_field(kubeconform: programs.Kubeconform) -> None:
    manifests = rendered({}).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
    [problem, *_] = kubeconform.problems(manifests)
    assert "readOnlyRootFileSystem" in problem


def test_kubeconform_knows_the_kinds_of_others(kubeconform: programs.Kubeconform) -> None:
    manifests = rendered(EVERYTHING).replace("parentRefs", "parents").replace("endpoints:", "end:")
    kinds = {problem.partition(" ")[0] for problem in kubeconform.problems(manifests)}
    assert kinds == {"HTTPRoute", "ServiceMonitor"}


@pytest.mark.usefixtures("chart_programs")
def test_kube_score_has_no_advice_without_an_exception() -> None:
    exceptions = yaml.safe_load(EXCEPTIONS.read_text())
    found = programs.score(rendered(EVERYTHING), binaries.kubernetes_version())
    assert {(check, summary) for _, check, summary in found} == {
        (check, summary) for check, summaries in exceptions.items() for summary in summaries
    }, found
    assert all(reason for summaries in exceptions.values() for reason in summaries.values())


# --- values that nobody has thought of ------------------------------------------------------------


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of single values."""
    properties = resolved(schema).get("properties")
    if not properties or any(path == tuple(judged.split(".")) for judged in JUDGED_BY_CRD):
        yield path
        return
    if schema.get("$ref", "#/definitions/image") != "#/definitions/image":
        yield path  # a type of Kubernetes is one value
        return
    for name, child in properties.items():
        yield from leaves(child, (*path, name))


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return SCHEMA["definitions"][name] if name else schema


def at(path: tuple[str, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = SCHEMA
    for name in path:
        schema = resolved(schema)["properties"][name]
    return schema


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *parents, name = path
    for parent in parents:
        values = values.setdefault(parent, {})
    values[name] = value


PATHS = [path for path in leaves(SCHEMA) if ".".join(path) not in JUDGED_BY_CRD]
STRATEGIES = {path: strategies.of_schema(at(path), SCHEMA["definitions"]) for path in PATHS}
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)


@st.composite
def chosen(draw: st.DrawFn) -> dict[str, Any]:
    """Return everything that the chart can make, with some values in place of the usual ones."""
    values: dict[str, Any] = copy.deepcopy(EVERYTHING)
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=8, unique=True)):
        put(values, path, draw(STRATEGIES[path]))
    return values


def merged(values: Any, defaults: Any) -> Any:
    """Return values over defaults, as Helm merges them: null deletes."""
    if not isinstance(values, dict) or not isinstance(defaults, dict):
        return values
    both = {**defaults, **{name: merged(v, defaults.get(name)) for name, v in values.items()}}
    return {name: value for name, value in both.items() if value is not None}


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(values=chosen())
def test_what_the_schema_accepts_is_valid(
    kubeconform: programs.Kubeconform, values: dict[str, Any]
) -> None:
    """Or a sentence of the template says which values do not go together."""
    assume(VALIDATOR.is_valid(merged(values, VALUES)))
    done = helm("template", values)
    if done.returncode:
        assert "Error: execution error at" in done.stderr, done.stderr
        return
    assert kubeconform.problems(done.stdout) == []


@settings(max_examples=EXAMPLES)
@given(path=st.sampled_from(PATHS), value=strategies.TEXT | st.integers() | st.just([1]))
def test_what_the_schema_refuses_helm_refuses_by_name(path: tuple[str, ...], value: Any) -> None:
    values = copy.deepcopy(EVERYTHING)
    put(values, path, value)
    errors = list(VALIDATOR.iter_errors(merged(values, VALUES)))
    assume(errors)
    done = helm("template", values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert "/" + "/".join(path) in done.stderr
