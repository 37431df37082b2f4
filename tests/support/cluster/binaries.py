"""The cluster's programs, built from the Go module beside this file and cached by its contents."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

MODULE = Path(__file__).with_name("go")
PACKAGES = {
    "pause": "./pause",
    "kubectl": "./kubectl",
    "coredns": "./coredns",
    "helm": "helm.sh/helm/v3/cmd/helm",
    "kube-router": "./kube-router",
    "kube": "./kube",
}
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}


def path(program: str) -> Path:
    """Return the path of a program; build all of them if they are missing."""
    return directory() / program


def tool(program: str) -> str:
    """Return kubectl or helm: the machine's own, or else the one that is built here."""
    return shutil.which(program) or str(path(program))


@functools.cache
def directory() -> Path:
    """Return the folder of the built programs.

    The first build takes minutes; other processes wait until it is done.
    """
    target = _cache() / _version()
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in PACKAGES.items():
            if not (target / name).exists():
                _build(package, target / name, options=_stamp())
    return target


def of_module(module: Path, name: str, package: str, tags: str = "") -> Path:
    """Return the path of a program of another Go module; build it if it is missing."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(module.iterdir())))
    target = _cache() / f"{name}-{digest.hexdigest()[:16]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(package, target, module, tags=tags)
    return target


def put_on_path() -> None:
    """Add kubectl and helm to the PATH of this process if the machine has none of its own."""
    if shutil.which("kubectl") is None or shutil.which("helm") is None:
        os.environ["PATH"] = f"{os.environ['PATH']}:{directory()}"


def kubernetes_version() -> str:
    """Return the version of Kubernetes in go.mod, such as ``v1.34.4``."""
    lines = map(str.split, (MODULE / "go.mod").read_text().splitlines())
    return next(line[1] for line in lines if line[:1] == ["k8s.io/kubernetes"])


def _stamp() -> str:
    """Return the linker's options that tell Kubernetes' programs their version."""
    version = kubernetes_version()
    major, minor = version.lstrip("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return "".join(
        f" -X {module}.{name}={value}"
        for module in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in values.items()
    )


def _build(
    package: str, target: Path, module: Path = MODULE, options: str = "", tags: str = ""
) -> None:
    partial = target.with_name(f"{target.name}.partial")
    linker = f"-s -w{options}"
    command = ["go", "build", "-trimpath", "-tags", tags, "-ldflags", linker]
    command += ["-o", str(partial), package]
    try:
        done = subprocess.run(
            command,
            cwd=module,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise SystemExit(
            f"Go is needed to build {package} ({module}/go.mod names the version)"
        ) from None
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    partial.rename(target)


def _version() -> str:
    digest = hashlib.sha256(repr((sorted(PACKAGES.items()), sorted(ENVIRONMENT.items()))).encode())
    for file in sorted(MODULE.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(MODULE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasession" / "cluster"
