"""The Debian packages that this machine needs, all in one place."""

from __future__ import annotations

import os
import shutil
import subprocess

# Group -> package -> a program or file by which its presence is seen.
PACKAGES: dict[str, dict[str, str]] = {
    "cluster": {
        "containerd": "containerd",
        "runc": "runc",
        "containernetworking-plugins": "/usr/lib/cni/bridge",
        "iptables": "iptables",
        "iproute2": "ip",
        "conntrack": "conntrack",
        "kmod": "modprobe",
        "util-linux": "nsenter",
    },
    "images": {"buildah": "buildah", "mmdebstrap": "mmdebstrap"},
    "browser": {"chromium": "chromium", "fonts-liberation": "/usr/share/fonts/truetype/liberation"},
}


def ensure(*groups: str) -> None:
    """Installs what is missing of the named groups; raises ``SystemExit`` with a sentence when that can't be done."""
    missing = [
        package
        for group in groups
        for package, evidence in PACKAGES[group].items()
        if not (os.path.exists(evidence) if evidence.startswith("/") else shutil.which(evidence))  # noqa: PTH110
    ]
    if "cluster" in groups and os.geteuid() != 0:
        raise SystemExit(
            "the embedded cluster makes namespaces and mounts: run this as root, or use --cluster=kind or existing"
        )
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(
            f"not a Debian machine: install what these Debian packages hold: {' '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise SystemExit(f"run this as root, or install: {' '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "--no-install-recommends", *missing],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
