"""The project's images, built from its Dockerfile with docker, or with buildah where none runs.

``python -m support.cluster.images`` builds all of them and prints their names and sizes. buildah
needs no registry: mmdebstrap assembles the base image that docker would pull
(``debian:bookworm-slim``) from Debian's packages, once per machine.
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
# debian:bookworm-slim leaves these out as well.
SLIM = [
    f"--dpkgopt=path-exclude=/usr/share/{unused}/*" for unused in ("doc", "man", "info", "locale")
]


def name(target: str) -> str:
    """Return the image's name in docker or buildah, and on the cluster's nodes."""
    return f"localhost/wasession/{target}:dev"


def build(target: str) -> str:
    """Build a target and return the image's name.

    Unchanged layers are reused, so a change of code takes seconds. Raises ``SystemExit`` with the
    output of a build that fails.
    """
    more = _chromium_label() if target == "session-pod" else []
    _run([*_build_command(), "--target", target, "--tag", name(target), *more, str(ROOT)])
    return name(target)


def _build_command() -> list[str]:
    """Return the engine's command for the project's Dockerfile, without target and context."""
    if engine() == "docker":
        command = ["docker", "build"]
    else:
        command = ["buildah", "build", "--layers", "--isolation=chroot", "--network=host"]
        command += [f"--build-arg=BASE={_base()}", *_trust()]
    return [*command, "--file", str(ROOT / "Dockerfile")]


def _chromium_label() -> list[str]:
    """Return the argument that labels the session pod's image with its exact Chromium version."""
    with tempfile.TemporaryDirectory() as directory:
        output = f"type=local,dest={directory}"
        command = [*_build_command(), "--target", "chromium-version", "--output", output]
        _run([*command, str(ROOT)])
        version = Path(directory, "chromium-version").read_text()
    return [f"--build-arg=CHROMIUM_INSTALLED={version}"]


def archive(image: str) -> Path:
    """Return docker's archive of an image, cached by image id in the user's cache directory."""
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
            # Not an OCI archive, which buildah compresses: that takes a minute.
            _run(["buildah", "push", "--quiet", image, f"docker-archive:{partial}:{image}"])
        partial.rename(path)
    return path


def tag(target: str, other: str) -> str:
    """Give a built image a second name; return that name."""
    _run([engine(), "tag", name(target), other])
    return other


def label(target: str, key: str) -> str:
    """Return a label of a built image; empty without it."""
    labels = {"docker": ".Config.Labels", "buildah": ".OCIv1.Config.Labels"}[engine()]
    template = f'{{{{index {labels} "{key}"}}}}'
    return _output([engine(), "inspect", "--type=image", "--format", template, name(target)])


def size(target: str) -> str:
    """Return the unpacked size of a built image as its engine prints it (``"712 MB"``)."""
    if engine() == "docker":
        return _output(["docker", "images", "--format", "{{.Size}}", name(target)])
    return _output(["buildah", "images", "--format", "{{.Size}}", name(target)])


_ID_FORMAT = {"docker": "{{.Id}}", "buildah": "{{.FromImageID}}"}


@functools.cache
def engine() -> str:
    """Return ``docker`` if a daemon answers, else ``buildah``, which is installed if missing."""
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
    """Return arguments that make pip and npm trust this machine's certificate authorities.

    That matters behind a proxy with a certificate authority of its own.
    """
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
