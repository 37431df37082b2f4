"""The parts of a release, but for the images: they can be installed, and are of its version."""

from __future__ import annotations

import json
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import yaml
from support.testbed import ROOT

from release import build
from release.signature import sha256

VERSION = "1.2.3-rc.1"  # of the chart; the packages have their own
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_the_chart(tmp_path: Path) -> None:
    build.build_chart(VERSION, tmp_path)
    [package] = tmp_path.iterdir()
    assert package.name == f"wasession-operator-{VERSION}.tgz"
    with tarfile.open(package) as archive:
        file = archive.extractfile("wasession-operator/Chart.yaml")
        assert file is not None
        chart = yaml.safe_load(file.read())
        assert "wasession-operator/files/wasession.dev_whatsappsessions.yaml" in archive.getnames()
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_crds_in_one_file(tmp_path: Path) -> None:
    build.build_crds(VERSION, tmp_path)
    text = (tmp_path / f"wasession-crds-{VERSION}.yaml").read_text()
    sources = [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "crds").glob("*.yaml"))]
    assert [*yaml.safe_load_all(text)] == sources


def test_the_documents_for_clients(tmp_path: Path) -> None:
    build.build_api_documents(VERSION, tmp_path)
    for name in ("gateway", "session-pod"):
        document = json.loads((tmp_path / f"wasession-{name}-api-{VERSION}.json").read_text())
        assert document["openapi"].startswith("3.")
        assert document["paths"]


def test_the_plugin_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        build.build_wheels(folder, AT)
    names = sorted(file.name for file in first.iterdir())
    assert [name.partition("-")[0] for name in names] == ["wasession_api", "wasession_cli"]
    assert all(sha256(first / name) == sha256(second / name) for name in names)
    with zipfile.ZipFile(first / names[1]) as wheel:
        [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
        assert "kubectl-wasession = " in wheel.read(entry_points).decode()
