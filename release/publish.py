"""``python -m release.publish VERSION REGISTRY``: push what ``build/release`` has.

The images of all architectures become one, ``REGISTRY/operator:VERSION``; the chart is
``oci://REGISTRY/charts/wasession-operator``. buildah and helm have logged in before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.cluster import binaries

from release.build import FOLDER, IMAGES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m release.publish")
    parser.add_argument("version")
    parser.add_argument("registry", help="with a path, such as registry.example/wasession")
    parser.add_argument("--plain-http", action="store_true", help="for a registry without TLS")
    arguments = parser.parse_args()
    files = sorted(FOLDER.glob("*")) if FOLDER.exists() else []
    if not any(file.name == f"wasession-operator-{arguments.version}.tgz" for file in files):
        sys.exit(f"nothing to publish: build {arguments.version} first, with make release")
    for command in commands(
        arguments.version, arguments.registry, files, plain_http=arguments.plain_http
    ):
        print(*command, flush=True)
        subprocess.run(command, check=True)


def commands(
    version: str, registry: str, files: Sequence[Path], *, plain_http: bool = False
) -> Iterator[list[str]]:
    """Yield the commands that push these files, the chart last: it names the images."""
    insecure = ["--tls-verify=false"] if plain_http else []
    for target in IMAGES:
        image = f"{registry}/{target}:{version}"
        prefix = f"wasession-{target}-{version}-linux-"
        archives = [f for f in files if f.name.startswith(prefix) and f.suffix == ".tar"]
        yield ["buildah", "manifest", "create", "--amend", image]
        for archive in archives:
            yield ["buildah", "manifest", "add", image, f"oci-archive:{archive}"]
        push = ["buildah", "manifest", "push", "--all", *insecure]
        yield [*push, image, f"docker://{image}"]
        yield ["buildah", "manifest", "rm", image]
    chart = next(file for file in files if file.name == f"wasession-operator-{version}.tgz")
    options = ["--plain-http"] if plain_http else []
    yield [binaries.tool("helm"), "push", *options, str(chart), f"oci://{registry}/charts"]


if __name__ == "__main__":
    main()
