"""The Debian packages that tests and demo need on this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

LOCK = Path("/run/lock/wasession-packages")
# Group -> package -> a program or file that shows that it is installed.
PACKAGES: dict[str, dict[str, str]] = {
    "cluster": {
        "containerd": "containerd",
        "runc": "runc",
        "containernetworking-plugins": "/usr/lib/cni/bridge",
        "iptables": "iptables",
        "ipset": "ipset",
        "iproute2": "ip",
        "conntrack": "conntrack",
        "kmod": "modprobe",
        "util-linux": "nsenter",
        "procps": "pkill",
        "jq": "jq",  # docs/backup.md's drills use it
    },
    "images": {"buildah": "buildah", "mmdebstrap": "mmdebstrap"},
    "emulation": {"qemu-user-static": "qemu-aarch64-static", "arch-test": "arch-test"},
    "browser": {
        "chromium": "chromium",
        "fonts-liberation": "/usr/share/fonts/truetype/liberation",
        "libnss3-tools": "certutil",
    },
}


def ensure(*groups: str) -> None:
    """Install the missing packages of these groups; raises ``SystemExit`` if that is impossible.

    One process installs at a time; the others wait for it.
    """
    if "cluster" in groups and os.geteuid() != 0:
        raise SystemExit(
            "the embedded cluster makes namespaces and mounts: "
            "run this as root, or use --cluster=kind or --cluster=existing"
        )
    missing = _missing(groups)
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(
            f"not a Debian machine: install the contents of these packages: {' '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise SystemExit(f"run this as root, or install: {' '.join(missing)}")
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(_missing(groups))


def _missing(groups: tuple[str, ...]) -> list[str]:
    return [
        package
        for group in groups
        for package, evidence in PACKAGES[group].items()
        if not (Path(evidence).exists() if evidence.startswith("/") else shutil.which(evidence))
    ]


def _install(packages: list[str]) -> None:
    if not packages:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
