"""What an image keeps of Debian; runs inside its build, as root.

``prune PACKAGE...`` keeps these packages and those of the libraries that their programs link, and
removes all others. dpkg's database has what is left, for scanners of vulnerabilities. ``check``
fails if any program or library does not find a library that it links.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LOADER = next(Path("/").glob("lib*/ld-linux*.so.*"))  # the architecture is in its name
LINKED = re.compile(r"^\s(\S+) => (\S+|not found)(?: \(0x|$)", re.MULTILINE)
INFO = Path("/var/lib/dpkg/info")
MOUNTS = ("dev", "proc", "run", "sys", "tmp")
# Copyright files stay: licenses ask for them.
UNUSED = (
    *(f"usr/share/{name}" for name in ("bash-completion", "info", "lintian", "locale", "man")),
    "usr/share/doc/*/[!c]*",
    "usr/share/doc/*/changelog*",
    "usr/share/zoneinfo/right",  # with leap seconds
    "usr/lib/python3*/pydoc_data",  # texts of help()
    "usr/lib/python3*/test",
    "usr/lib/*/gconv",  # character sets of iconv: Python and Chromium have their own
    "etc/apt",
    "etc/dpkg",
    *(f"var/cache/{name}" for name in ("apt", "debconf", "ldconfig")),
    "var/lib/apt",
    "var/lib/dpkg/*-old",
    "var/log/*",
)


def prune(packages: set[str]) -> None:
    files = {package: _files(package) for package in _installed()}
    owners = {path: package for package, paths in files.items() for path in paths}
    if unknown := packages - files.keys():
        sys.exit(f"not installed: {' '.join(sorted(unknown))}")
    # The loader names the libraries' own libraries as well.
    libraries = {
        library
        for package in packages
        for path in filter(_is_elf, files[package])
        for library in _linked(path).values()
    }
    kept = packages | {owners[library.resolve()] for library in libraries if library is not None}
    _purge(files.keys() - kept)
    for path in (path for pattern in UNUSED for path in Path("/").glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def check() -> None:
    missing = [
        f"{path} links {name}, which is missing"
        for path in _all_files()
        if _is_elf(path)
        for name, library in _linked(path).items()
        if library is None
    ]
    if missing:
        sys.exit("\n".join(missing))


def _installed() -> list[str]:
    query = ["dpkg-query", "--show", "--showformat", "${Package}\n"]
    return subprocess.run(query, check=True, text=True, stdout=subprocess.PIPE).stdout.split()


def _files(package: str) -> set[Path]:
    """Return a package's files; dpkg has some of them in /lib, which is a link to /usr/lib."""
    indexes = (*INFO.glob(f"{package}.list"), *INFO.glob(f"{package}:*.list"))
    return {Path(line).resolve() for index in indexes for line in index.read_text().splitlines()}


def _all_files() -> Iterator[Path]:
    for directory, directories, names in os.walk("/"):
        if directory == "/":
            directories[:] = set(directories).difference(MOUNTS)
        yield from (Path(directory, name) for name in names)


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _linked(elf: Path) -> dict[str, Path | None]:
    """Return where the loader finds the libraries that a file links, even indirectly, by name."""
    environment = os.environ | {"LD_TRACE_LOADED_OBJECTS": "1"}  # as ldd sets it
    result = subprocess.run(  # fails for programs that are linked statically
        [LOADER, elf], env=environment, capture_output=True, text=True, check=False
    )
    return {
        name: None if found == "not found" else Path(found)
        for name, found in LINKED.findall(result.stdout)
    }


def _purge(packages: set[str]) -> None:
    for package in packages:  # without their scripts, whose tools may be gone before
        for script in ("prerm", "postrm"):
            for path in (*INFO.glob(f"{package}.{script}"), *INFO.glob(f"{package}:*.{script}")):
                path.unlink()
    command = ["dpkg", "--purge", "--force-all", "--no-triggers", *sorted(packages)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(result.stderr)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prune", *packages]:
            prune(set(packages))
        case ["check"]:
            check()
        case _:
            sys.exit(__doc__)
