"""Reading OCI archives (https://github.com/opencontainers/image-spec/blob/main/image-layout.md)."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any


def read_file(archive: Path, name: str) -> str | None:
    """Return a text file of an image's root file system; None if the image does not have it."""
    with tarfile.open(archive) as blobs:
        for layer in reversed(_manifest(blobs)["layers"]):
            with tarfile.open(fileobj=blobs.extractfile(_path(layer))) as files:
                names = {member.removeprefix("./"): member for member in files.getnames()}
                if name in names and (found := files.extractfile(names[name])) is not None:
                    return found.read().decode()
    return None


def _manifest(blobs: tarfile.TarFile) -> dict[str, Any]:
    """Return the manifest of the archive's only image."""
    document = _load(blobs, "index.json")
    while "manifests" in document:
        document = _load(blobs, _path(document["manifests"][0]))
    return document


def _path(descriptor: dict[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _load(blobs: tarfile.TarFile, name: str) -> dict[str, Any]:
    file = blobs.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file of the archive")
    document: dict[str, Any] = json.load(file)
    return document
