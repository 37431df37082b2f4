"""What Chart.yaml tells Artifact Hub is so."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from support.testbed import ROOT
from wasession_api.v1alpha1 import BackupSpec, ClassSpec, Spec

CHART = yaml.safe_load((ROOT / "charts/wasession-operator/Chart.yaml").read_text())
VALUES = yaml.safe_load((ROOT / "charts/wasession-operator/values.yaml").read_text())


def annotation(name: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = yaml.safe_load(CHART["annotations"][f"artifacthub.io/{name}"])
    return result


def test_the_icon_is_the_one_of_the_docs() -> None:
    kind, _, data = CHART["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(data) == (ROOT / "docs/images/icon.svg").read_bytes()


def test_the_images_are_the_default_ones() -> None:
    images = (VALUES["image"], VALUES["sessionImage"], VALUES["gateway"]["image"])
    assert [image["image"] for image in annotation("images")] == [
        f"{image['repository']}:{CHART['appVersion']}" for image in images
    ]


def test_the_kinds_are_those_of_the_crds() -> None:
    crds = [yaml.safe_load(file.read_text()) for file in (ROOT / "crds").glob("*.yaml")]
    described = {
        (crd["name"], crd["kind"], crd["displayName"], crd["version"]) for crd in annotation("crds")
    }
    assert described == {
        (crd["metadata"]["name"], kind, kind, version["name"])
        for crd in crds
        for kind in [crd["spec"]["names"]["kind"]]
        for version in crd["spec"]["versions"]
    }


SPECS: dict[str, type[BaseModel]] = {
    "WhatsAppSession": Spec,
    "WhatsAppSessionClass": ClassSpec,
    "WhatsAppSessionBackup": BackupSpec,
}


@pytest.mark.parametrize("kind", SPECS)
def test_its_example_is_valid(kind: str) -> None:
    [example] = [example for example in annotation("crdsExamples") if example["kind"] == kind]
    SPECS[kind].model_validate(example["spec"])
