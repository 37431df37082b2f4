"""kubeconform and kube-score, built from the Go module beside this file, and what they need."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from support.chart import openapi
from support.cluster import binaries

MODULE = Path(__file__).with_name("go")
PACKAGES = {
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
    "kube-score": "github.com/zegl/kube-score/cmd/kube-score",
}
# The CRDs of others' kinds that the chart can render are files of these modules.
CRDS = {
    "sigs.k8s.io/gateway-api@v1.4.1": [
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml"
        for plural in ("podmonitors", "prometheusrules", "servicemonitors")
    ],
}


def program(name: str) -> Path:
    """Return the path of a program; the first build of both takes less than a minute."""
    return binaries.of_module(MODULE, name, PACKAGES[name])


def build() -> None:
    """Build both, and fetch the CRDs."""
    for name in PACKAGES:
        program(name)
    list(crds())


def crds() -> Iterator[Mapping[str, Any]]:
    """Yield the CRDs of others; Go fetches their modules and verifies the checksums."""
    for module, files in CRDS.items():
        command = ["go", "mod", "download", "-json", module]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        directory = Path(json.loads(done.stdout)["Dir"])
        for file in files:
            yield yaml.safe_load((directory / file).read_text())


class Kubeconform:
    """Validates manifests against what an API server says of its types, and others' CRDs."""

    def __init__(self, directory: Path, documents: Iterable[Mapping[str, Any]]) -> None:
        """Write the schemas of all kinds, those of /openapi/v3/… included, into a directory."""
        documents = list(documents)
        types = openapi.definitions(documents)
        self._directory = directory
        for version, kind, name in openapi.by_kind(documents):
            schema = {
                "$ref": openapi.REFERENCE + name,
                "definitions": openapi.with_references(types, [name]),
            }
            self._write(kind, version, schema)
        for crd in crds():
            kind = crd["spec"]["names"]["kind"]
            for version in crd["spec"]["versions"]:
                self._write(kind, version["name"], openapi.of_crd(version))

    def _write(self, kind: str, version: str, schema: openapi.Schema) -> None:
        file = self._directory / f"{kind}_{version}.json".lower()
        file.write_text(json.dumps(schema))

    def problems(self, manifests: str) -> list[str]:
        """Return what is wrong with a stream of YAML documents."""
        template = "{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
        command = [str(program("kubeconform")), "-strict", "-output", "json"]
        command += ["-schema-location", f"{self._directory}/{template}"]
        done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return [
            f"{resource['kind']} {resource['name']}: {resource['msg']}"
            for resource in json.loads(done.stdout)["resources"]
        ]


def score(manifests: str, kubernetes: str) -> set[tuple[str, str, str]]:
    """Return what kube-score finds for a version of Kubernetes: object, check and advice."""
    minor = ".".join(kubernetes.split(".")[:2])
    command = [str(program("kube-score")), "score", "--output-format", "json"]
    command += ["--kubernetes-version", minor, "-"]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return {
        (item["object_name"], check["check"]["id"], comment["summary"])
        for item in json.loads(done.stdout)
        for check in item["checks"]
        if check["grade"] < 10 and not check["skipped"]
        for comment in check["comments"] or [{"summary": check["check"]["name"]}]
    }
