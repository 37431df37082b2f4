"""Run the session pod in a container like the operator's, from files instead of an image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from support.cluster import host

USER = 10001
REPOSITORY = Path(__file__).resolve().parents[3]
SECCOMP = REPOSITORY / "session-pod" / "seccomp.json"


def command(
    directory: Path,
    environment: dict[str, str],
    seccomp: dict[str, Any],
    user: int = USER,
    group: int = USER,
) -> list[str]:
    """Return a command that runs the session pod without root and without capabilities.

    Only the volume, /tmp and /dev/shm are writable. The volume's group is ``USER``, whatever those
    of the process, as with ``fsGroup``.
    """
    host.ensure("cluster")
    name = f"wasession-{uuid.uuid4().hex}"
    bundle = directory.parent / f"{name}.bundle"
    root = bundle / "root"
    root.mkdir(parents=True)
    os.chown(directory, 0, USER)
    directory.chmod(0o2775)
    specification = _specification(directory, environment, seccomp, user, group)
    (bundle / "config.json").write_text(json.dumps(specification))
    # The root file system of this machine, without its other mounts.
    steps = [f"mount --bind / {root}"]
    for path in (Path(sys.base_prefix), REPOSITORY):
        steps += _reachable(root, path)
    return [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f"{'; '.join(steps)}; exec runc run --bundle {bundle} $0",
        name,
    ]


def _reachable(root: Path, path: Path) -> list[str]:
    """Return commands that bind a directory into the container, even from a private home."""
    closed = [parent for parent in path.parents if not parent.stat().st_mode & 0o001]
    steps = [f"mount -t tmpfs -o mode=755 tmpfs {root}{closed[-1]}"] if closed else []
    return [*steps, f"mkdir -p {root}{path}", f"mount --bind -o ro {path} {root}{path}"]


def _specification(
    directory: Path, environment: dict[str, str], seccomp: dict[str, Any], user: int, group: int
) -> dict[str, Any]:
    def temporary(target: str, mode: str) -> dict[str, Any]:
        return {
            "destination": target,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", f"mode={mode}"],
        }

    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": group, "additionalGids": [USER]},
            "args": [sys.executable, "-m", "wasession_pod"],
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in environment.items()],
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": "root", "readonly": True},
        "mounts": [
            {
                "destination": "/proc",
                "type": "proc",
                "source": "proc",
                "options": ["nosuid", "noexec", "nodev"],
            },
            temporary("/dev", "755"),
            temporary("/dev/shm", "1777"),
            temporary("/tmp", "1777"),
            {"destination": str(directory), "source": str(directory), "options": ["rbind", "rw"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "seccomp": seccomp,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ],
        },
    }


def end(arguments: list[str]) -> None:
    """Delete what runc has left of a stopped container."""
    subprocess.run(["runc", "delete", "--force", arguments[-1]], check=False, capture_output=True)
