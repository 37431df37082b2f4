"""Completion for kubectl: it runs ``kubectl_complete-wasession`` with the words after ``kubectl wasession``.

The answer is cobra's: a completion a line, with a tab before its description, and last the
directive (4: no file names).
"""

from __future__ import annotations

import sys

from click.shell_completion import ShellComplete

from wasession_cli.main import PROGRAM, cli

NO_FILES = ":4"
DEFAULT = ":0"


def complete(words: list[str]) -> list[str]:
    """The lines for what has been typed; the last word is the one that is being typed."""
    *done, incomplete = words or [""]
    found = ShellComplete(cli, {}, PROGRAM, "").get_completions(done, incomplete)
    if any(item.type in ("file", "dir") for item in found):
        return [DEFAULT]
    return [
        *(f"{item.value}\t{item.help}" if item.help else item.value for item in found),
        NO_FILES,
    ]


def main() -> None:
    sys.stdout.write("\n".join(complete(sys.argv[1:])) + "\n")
