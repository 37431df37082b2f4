"""kubectl, helm and the API server accept what the documentation has a reader type."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import jsonschema_rs
import pytest
import yaml
from support.cluster import binaries
from support.documentation import Block, Call, blocks, fenced_calls, inline_calls
from support.fakes.api import Api, ApiError, Manifest
from support.fakes.world import Environment
from support.testbed import CHART, ROOT
from wasession_api.v1alpha1 import API_VERSION, BACKUP_KIND, CLASS_KIND, KIND

NAMESPACE = "documentation"
STRICT = "dryRun=All&fieldValidation=Strict"
# A spec that a fragment can be added to, by its kind.
BASES: dict[str, Manifest] = {
    KIND: {},
    CLASS_KIND: {},
    BACKUP_KIND: {"sessionName": "sales-eu"},
}


def commands(program: str) -> list[Call]:
    return [call for call in (*fenced_calls(), *inline_calls()) if call.program == program]


# --- kubectl --------------------------------------------------------------------------------------


def kubectl_calls() -> list[Call]:
    return [call for call in commands("kubectl") if "wasession" not in call.arguments[:1]]


def parsed_by_kubectl(call: Call) -> str:
    """Let kubectl parse the options of a command; return its error, empty if there is none.

    With ``--help`` it reads all of them, and does nothing.
    """
    arguments = list(call.arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    done = subprocess.run(
        [binaries.tool("kubectl"), *arguments[:end], "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return done.stderr.strip()
    # Of an unknown command, kubectl shows its own help.
    return "" if "kubectl controls the Kubernetes" not in done.stdout else "unknown command"


def test_kubectl_knows_commands_and_options() -> None:
    found = {call.arguments: call for call in kubectl_calls()}
    assert len(found) > 50
    wrong = {
        f"{call.where}: kubectl {shlex.join(call.arguments)}": error
        for call in found.values()
        if (error := parsed_by_kubectl(call))
    }
    assert wrong == {}


@pytest.mark.parametrize("wrong", ["get pods --fast", "destroy pod a", "wait a --until=b"])
def test_a_wrong_option_would_be_found(wrong: str) -> None:
    assert parsed_by_kubectl(Call("here", "kubectl", tuple(wrong.split())))


async def test_resources_exist(environment: Environment) -> None:
    """Each resource that is named can be resolved, in one of its forms."""
    names = await resource_names(environment.api)
    assert {"wasession", "wasc", "wasb", "pods", "pod"} <= names
    found = [call for call in kubectl_calls() if named_resource(call)]
    assert len(found) > 30
    for call in found:
        for resource in named_resource(call).split(","):
            # Those of others, which wasession needs: their CRDs are not installed here.
            if resource != "volumesnapshot":
                assert resource in names, f"{call.where}: kubectl {shlex.join(call.arguments)}"


async def resource_names(api: Api) -> set[str]:
    """Return all names of the API server's resources: also of their kinds, and categories."""
    groups = (await api.call("GET", "/apis"))["groups"]
    versions = [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups]
    resources = [
        resource
        for path in ("/api/v1", *versions)
        for resource in (await api.call("GET", path))["resources"]
    ]
    return {
        name
        for resource in resources
        for name in (
            resource["name"],
            resource["singularName"],
            resource["kind"].lower(),
            *resource.get("shortNames", []),
            *resource.get("categories", []),
        )
    }


def named_resource(call: Call) -> str:
    """Return the type in a command such as ``kubectl -n sales get pods``, empty without one."""
    words = positional(call.arguments)
    if words[:1] and words[0] in ("get", "describe", "delete", "wait", "annotate", "patch", "edit"):
        return words[1].partition("/")[0] if len(words) > 1 else ""
    if words[:1] == ["explain"]:
        return words[1].partition(".")[0] if len(words) > 1 else ""
    return ""


def positional(arguments: tuple[str, ...]) -> list[str]:
    """Return the words that are neither options nor their values."""
    words, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word.startswith("-"):
            # The documentation writes long options with =, but for these.
            skip = word in ("-n", "-l", "-o", "-p", "-f", "--namespace", "--field-selector")
        else:
            words.append(word)
    return words


# --- helm -----------------------------------------------------------------------------------------


def test_helm_knows_its_commands_and_the_chart_its_values() -> None:
    found, helm = commands("helm"), binaries.tool("helm")
    assert len(found) > 8
    rendered = 0
    for call in found:
        arguments, where = list(call.arguments), f"{call.where}: helm {shlex.join(call.arguments)}"
        help_ = subprocess.run([helm, *arguments, "--help"], capture_output=True, check=False)
        assert help_.returncode == 0, f"{where}: {help_.stderr.decode()}"
        if str(CHART.relative_to(ROOT)) in arguments:
            values = [
                word
                for option, value in pairwise(arguments)
                if option == "--set"
                for word in (option, value)
            ]
            command = [helm, "template", "wasession", str(CHART), "-n", "wasession-system"]
            command += ["--kube-version", binaries.kubernetes_version()]
            done = subprocess.run([*command, *values], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{where}: {done.stderr}"
            rendered += 1
    assert rendered > 4


# --- manifests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def api(environment: Environment) -> AsyncIterator[Api]:
    api = environment.api
    await api.create("namespaces", {"metadata": {"name": NAMESPACE}})
    yield api
    await api.delete("namespaces", None, NAMESPACE)


def complete(text: str) -> str:
    """Fill in what a page shortens: checksums and keys."""
    text = re.sub(r"(sha256: )\w+…", lambda found: f"{found[1]}{'a' * 64}", text)
    return re.sub(r"age1(?:…|\.\.\.)", f"age1{'q' * 58}", text)


def documents(block: Block) -> list[Any]:
    return list(yaml.safe_load_all(complete(block.text)))


def is_of_others(manifest: Manifest) -> bool:
    """Return whether an object is of a CRD that this API server does not have."""
    group, slash, _ = manifest["apiVersion"].partition("/")
    ours = not slash or "." not in group or group.endswith(("k8s.io", "wasession.dev"))
    return not ours or group.startswith("gateway.")


async def try_out(api: Api, manifest: Manifest) -> None:
    """Create an object in a dry run; raises ``ApiError``."""
    version = manifest["apiVersion"]
    path = f"/api{'s' if '/' in version else ''}/{version}"
    [resource] = [
        one
        for one in (await api.call("GET", path))["resources"]
        if one["kind"] == manifest["kind"] and "/" not in one["name"]
    ]
    if resource["namespaced"]:
        manifest["metadata"]["namespace"] = NAMESPACE
        path += f"/namespaces/{NAMESPACE}"
    await api.call("POST", f"{path}/{resource['name']}?{STRICT}", manifest)


def fragments(document: Any) -> list[Manifest]:
    """Return the objects that a part of one may be of; one of them has to be valid."""
    egress = isinstance(document, list) and "to" in document[0]
    spec = {"egress": document} if egress else document["spec"]
    return [
        {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": "fragment"},
            "spec": {**base, **spec},
        }
        for kind, base in BASES.items()
    ]


def values() -> set[str]:
    return set(yaml.safe_load((CHART / "values.yaml").read_text()))


@pytest.mark.parametrize(
    "block", list(blocks("yaml")), ids=lambda block: f"{block.page}: {block.heading}"
)
async def test_a_manifest_is_valid(block: Block, api: Api) -> None:
    for document in documents(block):
        if isinstance(document, dict) and "kind" in document:
            if not is_of_others(document):
                await try_out(api, document)
        elif isinstance(document, list) or "spec" in document:
            await try_fragment(api, document)
        elif values() & set(document):  # otherwise it configures a program of others
            schema = json.loads((CHART / "values.schema.json").read_text())
            jsonschema_rs.validator_for({**schema, "required": []}).validate(document)


async def try_fragment(api: Api, document: Any) -> None:
    """Create objects with a part of their spec; raises ``ApiError`` if none is valid."""
    errors = []
    for manifest in fragments(document):
        try:
            await try_out(api, manifest)
        except ApiError as error:
            errors.append(error)
    if len(errors) == len(BASES):
        raise errors[0]


async def test_a_wrong_fragment_would_be_found(api: Api) -> None:
    with pytest.raises(ApiError):
        await try_fragment(api, {"spec": {"hibernation": {"afterSilence": "30m"}}})


async def test_the_examples_are_valid(api: Api) -> None:
    tried = 0
    for example in (ROOT / "examples").rglob("*.yaml"):
        for manifest in yaml.safe_load_all(example.read_text()):
            if "kind" in manifest and not is_of_others(manifest):
                await try_out(api, manifest)
                tried += 1
    assert tried > 2
