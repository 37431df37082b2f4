"""The commands and manifests in the documentation, as bash and YAML understand them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from support.testbed import ROOT

# READMEs that tell users and developers what to type; docs/ is read as a whole.
READMES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "charts/wasession-operator/README.md",
    "cli/README.md",
    "gateway/README.md",
    "operator/README.md",
    "session-pod/README.md",
    "tests/README.md",
    "tests/support/standin/README.md",
)
FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.M | re.S)
INLINE = re.compile(r"`((?:kubectl|helm|make) [^`]+)`")
# Records its name and arguments, reads to the end what is piped into it, or who writes that would
# fail, and prints something. Folders are made, since the shell itself writes into them.
RECORDER = """#!/bin/sh
while read -r _; do :; done
printf '%s\\0' "${0##*/}" "$@" '\036' >>"$RECORD"
if [ "${0##*/}" = mkdir ]; then /bin/mkdir "$@"; fi
echo "first second"
"""
# Programs whose options a test knows.
CHECKED = {"kubectl", "helm", "make", "curl", "pytest"}
# Programs of others, whose options no test knows.
FOREIGN = {
    "age-keygen",
    "awk",
    "aws",
    "base64",
    "cosign",
    "date",
    "docker",
    "grep",
    "gzip",
    "jq",
    "mkdir",
    "nats",
    "npm",
    "nsc",
    "openssl",
    "sha256sum",
    "sort",
    "tar",
    "uniq",
    "uuidgen",
    "uv",
}
END = "\036"
SECTION = "section"  # stands before the commands of a block


class Block(NamedTuple):
    """Fenced code of a page, without the indentation of the list that it is in."""

    page: str
    heading: str
    language: str
    text: str

    @property
    def commands(self) -> str:
        """Return what to type: of a session in a terminal, the lines behind the prompt."""
        if self.language == "sh":
            return self.text
        lines, more = [], False
        for line in self.text.splitlines():
            if more or line.startswith("$ "):
                lines.append(line if more else line[2:])
                more = line.endswith("\\")
        return "\n".join(lines)


class Call(NamedTuple):
    """A program that is run, with its arguments."""

    where: str
    program: str
    arguments: tuple[str, ...]


def make_targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def pages() -> dict[str, str]:
    """Return the pages by their path in the repository."""
    paths = [*READMES, *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]
    return {path: (ROOT / path).read_text() for path in paths}


def blocks(*languages: str) -> Iterator[Block]:
    """Return the fenced code of all pages in one of these languages."""
    for page, text in pages().items():
        for found in FENCED.finditer(text):
            if found["language"] in languages:
                headings = re.findall(r"^#+ (.*)$", text[: found.start()], re.M)
                indent = len(found["indent"])
                lines = [line[indent:] for line in found["text"].splitlines()]
                yield Block(page, headings[-1], found["language"], "\n".join(lines))


def inline_commands() -> Iterator[tuple[str, str]]:
    """Return each page's commands within sentences and tables, but those with an ellipsis."""
    for page, text in pages().items():
        for command in INLINE.findall(FENCED.sub("", text)):
            if "…" not in command:
                yield page, " ".join(command.replace("\\|", "|").split())


def calls(page: str, commands: str) -> list[Call]:
    """Return the programs that bash runs for these commands, and how; none of them really runs.

    Raises ``AssertionError`` if bash cannot read them, or if they name a program that is neither
    ``CHECKED`` nor ``FOREIGN``.
    """
    with tempfile.TemporaryDirectory() as folder:
        record, programs_folder, work = (Path(folder) / name for name in ("record", "bin", "work"))
        programs_folder.mkdir()
        work.mkdir()
        recorder = programs_folder / ".recorder"
        recorder.write_text(RECORDER)
        recorder.chmod(0o755)
        for program in CHECKED | FOREIGN | {SECTION}:
            (programs_folder / program).symlink_to(recorder)
        record.touch()
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", f"{commands}\nwait"],
            env={"PATH": str(programs_folder), "RECORD": str(record), "HOME": str(work)},
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{page}: {done.stderr}"
        found, where = list[Call](), page
        for one in record.read_text().split(f"{END}\0")[:-1]:
            program, *arguments = one.split("\0")[:-1]
            if program == SECTION:
                where = f"{page}: {' '.join(arguments)}"
            else:
                found.append(Call(where, program, tuple(arguments)))
    return found


@cache
def fenced_calls() -> tuple[Call, ...]:
    """Return what the pages have a reader run, page by page: a variable lasts for a page."""
    by_page: dict[str, list[str]] = {}
    for block in blocks("sh", "console"):
        # Programs of the virtual environment are named by their path.
        commands = block.commands.replace(".venv/bin/", "")
        by_page.setdefault(block.page, []).append(
            f"{SECTION} {shlex.quote(block.heading)} >/dev/null\n{commands}"
        )
    return tuple(call for page, parts in by_page.items() for call in calls(page, "\n".join(parts)))


@cache
def inline_calls() -> tuple[Call, ...]:
    """Return the commands within sentences; a name to replace, such as NAME, is a valid one."""
    found = (call for page, command in inline_commands() for call in calls(page, command))
    return tuple(
        call._replace(
            arguments=tuple(
                word.lower() if re.fullmatch(r"[A-Z-]{3,}(/[A-Z]+)?", word) else word
                for word in call.arguments
            )
        )
        for call in found
    )


def build_site(config: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as ``make docs`` does; the result has the warnings in ``stderr``."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*command, "--config-file", str(config), "--site-dir", str(to)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
