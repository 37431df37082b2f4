"""Builds the project's images from its Dockerfile: with docker where its daemon answers, with buildah elsewhere.

``python -m support.cluster.images`` builds all of them and prints their names and sizes. buildah
needs no registry: the base image that docker would pull (``debian:bookworm-slim``) is put together
from Debian's packages by mmdebstrap, once per machine.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.cluster import host

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("operator", "session-pod", "gateway", "standin")
BASE = "localhost/wasession/debian:bookworm"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# What debian:bookworm-slim leaves out as well.
SLIM = [
    f"--dpkgopt=path-exclude=/usr/share/{unused}/*" for unused in ("doc", "man", "info", "locale")
]


def name(target: str) -> str:
    """The image's name, the same in docker, buildah and in the cluster's nodes."""
    return f"localhost/wasession/{target}:dev"


def build(target: str) -> str:
    """Builds one target and returns its name; unchanged layers are reused, so a change of code takes seconds.

    Raises ``SystemExit`` with the build's output when it fails.
    """
    arguments = ["--target", target, "--tag", name(target), "--file", str(ROOT / "Dockerfile")]
    if engine() == "docker":
        command = ["docker", "build", *arguments]
    else:
        command = [
            "buildah",
            "build",
            "--layers",
            "--isolation=chroot",
            "--network=host",
            f"--build-arg=BASE={_base()}",
        ]
        command += [*_trust(), *arguments]
    _run([*command, str(ROOT)])
    return name(target)


def archive(image: str) -> Path:
    """An OCI (or docker) archive of a built image; made once per image id and kept in the user's cache directory."""
    image_id = _output(
        [engine(), "inspect", "--type=image", "--format", _ID_FORMAT[engine()], image]
    )
    directory = _cache() / "images"
    target = re.sub(r"[^A-Za-z0-9.-]", "_", image)
    path = directory / f"{target}-{image_id.removeprefix('sha256:')[:16]}.tar"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(f"{target}-*.tar*"):
            stale.unlink()
        partial = path.with_suffix(".tar.partial")
        if engine() == "docker":
            _run(["docker", "save", "--output", str(partial), image])
        else:
            # It does not leave this machine: compressing it would take a minute.
            push = ["buildah", "push", "--quiet", "--disable-compression", image]
            _run([*push, f"oci-archive:{partial}:{image}"])
        partial.rename(path)
    return path


def tag(target: str, other: str) -> str:
    """Gives a built image another name as well; returns that name."""
    _run([engine(), "tag", name(target), other])
    return other


def size(target: str) -> str:
    """The built image's size, unpacked, as its engine prints it (``"712 MB"``)."""
    if engine() == "docker":
        return _output(["docker", "images", "--format", "{{.Size}}", name(target)])
    return _output(["buildah", "images", "--format", "{{.Size}}", name(target)])


_ID_FORMAT = {"docker": "{{.Id}}", "buildah": "{{.FromImageID}}"}


@functools.cache
def engine() -> str:
    """``docker`` when a daemon answers, else ``buildah`` (installed when missing)."""
    try:
        if (
            subprocess.run(
                ["docker", "info"], capture_output=True, check=False, timeout=20
            ).returncode
            == 0
        ):
            return "docker"
    except (FileNotFoundError, subprocess.TimeoutExpired):
        pass
    host.ensure("images")
    return "buildah"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasession"


@functools.cache
def _base() -> str:
    if (
        subprocess.run(
            ["buildah", "inspect", "--type=image", BASE], capture_output=True, check=False
        ).returncode
        != 0
    ):
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory) / "root.tar"
            _run(["mmdebstrap", "--quiet", "--variant=minbase", *SLIM, "bookworm", str(root)])
            container = _output(["buildah", "from", "scratch"])
            _run(["buildah", "add", "--quiet", container, str(root), "/"])
            _run(["buildah", "commit", "--quiet", "--rm", container, BASE])
    return BASE


def _trust() -> list[str]:
    """Lets pip and npm trust what this machine trusts, which matters behind a proxy with an authority of its own."""
    if not CA_BUNDLE.exists():
        return []
    inside = "/run/build-ca.crt"
    return [
        f"--volume={CA_BUNDLE}:{inside}:ro",
        f"--build-arg=PIP_CERT={inside}",
        f"--build-arg=NODE_EXTRA_CA_CERTS={inside}",
    ]


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def main() -> None:
    for target in sys.argv[1:] or TARGETS:
        started = time.monotonic()
        build(target)
        print(
            f"{name(target)}  {size(target)}  built in {time.monotonic() - started:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
