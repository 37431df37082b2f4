"""The project's images, built from its Dockerfile with docker, or with buildah where none runs.

``python -m support.cluster.images`` builds all of them and prints their names and sizes;
``--architecture arm64`` builds them for other machines, whose programs qemu runs. buildah needs no
registry: mmdebstrap assembles the base image that docker would pull (``debian:bookworm-slim``) from
Debian's packages, once per machine. The environment's ``BASE`` is a base image to use instead, and
``SOURCE`` the address of the source code for the images' labels.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

from support.cluster import host

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("operator", "session-pod", "gateway", "standin")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's names and the kernel's
# debian:bookworm-slim leaves these out as well.
SLIM = [
    *(f"--dpkgopt=path-exclude=/usr/share/{unused}/*" for unused in ("man", "info", "locale")),
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
]
OF_THIS_MACHINE = '--customize-hook=rm "$1/etc/hostname" "$1/etc/resolv.conf"'


def own_architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    return next(name for name, processor in PROCESSORS.items() if processor == platform.machine())


def name(target: str, architecture: str | None = None) -> str:
    """Return the image's name in docker or buildah, and on the cluster's nodes."""
    return f"localhost/wasession/{target}:dev" + (f"-{architecture}" if architecture else "")


def build(target: str, architecture: str | None = None) -> str:
    """Build a target, for this machine or another architecture, and return the image's name.

    Unchanged layers are reused, so a change of code takes seconds. Raises ``SystemExit`` with the
    output of a build that fails.
    """
    image = name(target, architecture)
    command = [*_build_command(architecture), "--target", target, "--tag", image]
    command += [f"--build-arg={key}={value}" for key, value in labels().items()]
    if target == "session-pod":
        command.append(f"--build-arg=CHROMIUM_INSTALLED={_chromium_version(architecture)}")
    _run([*command, str(ROOT)])
    return image


def build_program(program: Path, target: str) -> str:
    """Build an image that has and runs one static program; return the image's name."""
    command = {"docker": ["docker", "build"], "buildah": ["buildah", "build", "--layers"]}[engine()]
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(program, Path(directory, "program"))
        text = 'FROM scratch\nCOPY program /program\nENTRYPOINT ["/program"]\n'
        Path(directory, "Dockerfile").write_text(text)
        _run([*command, "--tag", name(target), directory])
    return name(target)


def _build_command(architecture: str | None) -> list[str]:
    """Return the engine's command for the project's Dockerfile, without target and context."""
    base = os.environ.get("BASE", "")
    if engine() == "docker":
        command = ["docker", "build"]
    else:
        command = ["buildah", "build", "--layers", "--isolation=chroot", "--network=host"]
        command += _trust()
        base = base or _base(architecture)
    if base:
        command.append(f"--build-arg=BASE={base}")
    if architecture:
        _emulate(architecture)
        command.append(f"--platform=linux/{architecture}")
    return [*command, "--file", str(ROOT / "Dockerfile")]


def labels() -> dict[str, str]:
    """Return the build arguments for the images' labels: where this source code is from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    revision = subprocess.run(head, text=True, stdout=subprocess.PIPE, check=False).stdout.strip()
    return {
        "VERSION": project["version"],
        "REVISION": revision,
        "SOURCE": os.environ.get("SOURCE", ""),
    }


def _chromium_version(architecture: str | None) -> str:
    """Return the exact version of the Chromium that the session pod's image gets."""
    with tempfile.TemporaryDirectory() as directory:
        output = f"type=local,dest={directory}"
        command = [*_build_command(architecture), "--target", "chromium-version"]
        _run([*command, "--output", output, str(ROOT)])
        return Path(directory, "chromium-version").read_text()


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


def export(image: str, path: Path, reference: str) -> None:
    """Write an image into an OCI archive, in which it has the name ``reference``."""
    if engine() == "docker":  # 25 or newer
        _run(["docker", "tag", image, reference])
        _run(["docker", "save", "--output", str(path), reference])
    else:
        _run(["buildah", "push", "--quiet", image, f"oci-archive:{path}:{reference}"])


def tag(target: str, other: str) -> str:
    """Give a built image a second name; return that name."""
    _run([engine(), "tag", name(target), other])
    return other


def label(target: str, key: str) -> str:
    """Return a label of a built image; empty without it."""
    labels = {"docker": ".Config.Labels", "buildah": ".OCIv1.Config.Labels"}[engine()]
    template = f'{{{{index {labels} "{key}"}}}}'
    return _output([engine(), "inspect", "--type=image", "--format", template, name(target)])


def size(target: str, architecture: str | None = None) -> str:
    """Return the unpacked size of a built image as its engine prints it (``"712 MB"``)."""
    sizes = _output([engine(), "images", "--format", "{{.Size}}", name(target, architecture)])
    return sizes.splitlines()[0]  # buildah prints one for each name of the image


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
def _base(architecture: str | None) -> str:
    base = "localhost/wasession/debian:bookworm-slim" + (f"-{architecture}" if architecture else "")
    inspect = ["buildah", "inspect", "--type=image", base]
    if subprocess.run(inspect, capture_output=True, check=False).returncode == 0:
        return base
    bootstrap = ["mmdebstrap", "--quiet", "--variant=minbase", *SLIM, OF_THIS_MACHINE]
    of_architecture = []
    if architecture:
        _emulate(architecture)
        bootstrap.append(f"--architectures={architecture}")
        of_architecture.append(f"--arch={architecture}")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root.tar"
        _run([*bootstrap, "bookworm", str(root)])
        container = _output(["buildah", "from", *of_architecture, "scratch"])
        _run(["buildah", "add", "--quiet", container, str(root), "/"])
        _run(["buildah", "commit", "--quiet", "--rm", container, base])
    return base


@functools.cache
def _emulate(architecture: str) -> None:
    """Make the kernel run another architecture's programs with qemu; root, where nobody has yet."""
    processor = PROCESSORS[architecture]
    if processor == platform.machine() or (BINFMT / f"qemu-{processor}").exists():
        return
    host.ensure("emulation")
    if not (BINFMT / "register").exists():
        _run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    # As systemd does at boot.
    rule = Path(f"/usr/lib/binfmt.d/qemu-{processor}.conf").read_text()
    (BINFMT / "register").write_text(rule)


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
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", choices=PROCESSORS, help="for other machines")
    parser.add_argument("targets", nargs="*", default=TARGETS)
    arguments = parser.parse_args()
    for target in arguments.targets:
        started = time.monotonic()
        image = build(target, arguments.architecture)
        print(
            f"{image}  {size(target, arguments.architecture)}  "
            f"built in {time.monotonic() - started:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
