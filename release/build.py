"""Builds the parts of a release into a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path

from support.cluster import binaries, images
from wasession_gateway.operations import document as gateway_document
from wasession_pod.api.operations import api_document as pod_document

from release import oci, sbom
from release.signature import sha256

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "wasession-operator"
FOLDER = ROOT / "build" / "release"
IMAGES = ("operator", "session-pod", "gateway")
WHEELS = ("crds", "cli")  # the plugin, and what it needs of this repository


def build_image(
    target: str, architecture: str, version: str, folder: Path, moment: datetime
) -> None:
    """Build an image into an OCI archive, with its bill of materials beside it."""
    name = f"wasession-{target}-{version}-linux-{architecture}"
    archive = folder / f"{name}.tar"
    other = architecture if architecture != images.own_architecture() else None
    image = images.build(target, other)
    images.export(image, archive, f"wasession/{target}:{version}")
    status = oci.read_file(archive, "var/lib/dpkg/status") or ""
    packages = chain(
        sbom.python_packages((ROOT / target / "requirements.lock").read_text()),
        sbom.debian_packages(status, architecture),
        *(
            sbom.node_packages(json.loads(lock.read_text()))
            for lock in sorted((ROOT / target).glob("*/package-lock.json"))
        ),
    )
    document = sbom.document(f"wasession/{target}", version, sha256(archive), packages, moment)
    (folder / f"{name}.cdx.json").write_text(document)


def build_chart(version: str, folder: Path) -> None:
    command = [binaries.tool("helm"), "package", str(CHART), "--destination", str(folder)]
    _run([*command, "--version", version, "--app-version", version])


def build_crds(version: str, folder: Path) -> None:
    """Write the CRDs into one file."""
    files = sorted((ROOT / "crds").glob("*.yaml"))
    text = "".join(f"---\n{file.read_text()}" for file in files)
    (folder / f"wasession-crds-{version}.yaml").write_text(text)


def build_api_documents(version: str, folder: Path) -> None:
    """Write the OpenAPI documents of gateway and session pod, for clients in any language."""
    for name, document in (("gateway", gateway_document()), ("session-pod", pod_document())):
        path = folder / f"wasession-{name}-api-{version}.json"
        path.write_text(json.dumps(document, indent=2) + "\n")


def build_wheels(folder: Path, moment: datetime) -> None:
    """Build the packages of the kubectl plugin."""
    environment = {"SOURCE_DATE_EPOCH": str(int(moment.timestamp()))}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    for package in WHEELS:
        _run([*command, "--directory", str(folder)], environment, ROOT / package)


def _run(
    command: Sequence[str], environment: dict[str, str] | None = None, folder: Path = ROOT
) -> None:
    """Run a program; raise ``SystemExit`` with its output if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
