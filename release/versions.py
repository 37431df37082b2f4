"""The version of everything that is released together: pure, but for reading the files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

PACKAGES = (".", "cli", "crds", "gateway", "operator", "session-pod")
# https://semver.org, without build metadata, which no tag of an image can have.
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?")


def versions(root: Path) -> dict[str, str]:
    """Return the versions that the repository names, by where they stand."""
    found = {
        f"{package}/pyproject.toml": _load_project(root / package)["version"]
        for package in PACKAGES
    }
    path = "charts/wasession-operator/Chart.yaml"
    chart = yaml.safe_load((root / path).read_text())
    found |= {f"{path}: {name}": str(chart[name]) for name in ("version", "appVersion")}
    images = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    return found | {
        f"{path}: image {image['name']}": image["image"].rpartition(":")[2] for image in images
    }


def _load_project(folder: Path) -> dict[str, str]:
    project: dict[str, str] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def why_not(version: str, root: Path) -> str | None:
    """Return what is wrong with a version for what is in the repository; None if nothing is."""
    if not VERSION.fullmatch(version):
        return f"{version!r} is not a version such as 1.2.3 or 1.2.3-rc.1"
    others = {where: found for where, found in versions(root).items() if found != version}
    if others:
        listed = "\n".join(f"  {found}  {where}" for where, found in others.items())
        return f"the repository is not at {version}:\n{listed}"
    return None
