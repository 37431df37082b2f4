"""Software bills of materials of images, as CycloneDX 1.6: pure.

An image has Python packages, as its lock file pins them; Debian packages, as its dpkg says; and the
session pod's has packages of npm.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)


def python_packages(lock: str) -> Iterator[Component]:
    """Yield what a requirements file with exact versions pins."""
    for found in REQUIREMENT.finditer(lock):
        yield _library("pypi", found["name"], found["version"])


def debian_packages(status: str, architecture: str) -> Iterator[Component]:
    """Yield the packages that are installed, by the text of ``/var/lib/dpkg/status``."""
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z]\S*: ", line)
        )
        if fields.get("Status", "").endswith(" installed"):
            qualifiers = {"arch": fields.get("Architecture", architecture), "distro": "bookworm"}
            yield _library("deb", fields["Package"], fields["Version"], "debian", qualifiers)


def node_packages(lock: Mapping[str, Any]) -> Iterator[Component]:
    """Yield the packages of a ``package-lock.json`` that are not for its development."""
    for path, package in lock["packages"].items():
        if path and not package.get("dev"):
            namespace, _, name = path.rpartition("node_modules/")[2].rpartition("/")
            yield _library("npm", name, package["version"], namespace or None)


def _library(
    kind: str,
    name: str,
    version: str,
    namespace: str | None = None,
    qualifiers: dict[str, str] | None = None,
) -> Component:
    purl = PackageURL(kind, namespace, name, version, qualifiers)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        group=namespace if kind == "npm" else None,
        version=version,
        purl=purl,
        bom_ref=str(purl),
    )


def document(
    name: str, version: str, sha256: str, packages: Iterable[Component], at: datetime
) -> str:
    """Return the document of an image's archive with this checksum, made at ``at``."""
    image = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        bom_ref=f"{name}@sha256:{sha256}",
    )
    found = list(packages)
    serial = uuid.uuid5(uuid.NAMESPACE_OID, sha256)
    bom = Bom(components=found, serial_number=serial)
    bom.metadata.component, bom.metadata.timestamp = image, at
    bom.register_dependency(image, found)
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"
