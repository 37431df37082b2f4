"""Completion for kubectl, which runs ``kubectl_complete-wasession`` with the arguments so far.

The output is cobra's: one completion per line, its description after a tab, and last the directive
(4: no file names).
"""

from __future__ import annotations

import sys

from click.shell_completion import ShellComplete

from wasession_cli.main import PROGRAM, cli

NO_FILES = ":4"
DEFAULT = ":0"


def complete(arguments: list[str]) -> list[str]:
    """Return the output for the arguments so far; the last one is incomplete."""
    *complete, incomplete = arguments or [""]
    items = ShellComplete(cli, {}, PROGRAM, "").get_completions(complete, incomplete)
    if any(item.type in ("file", "dir") for item in items):
        return [DEFAULT]
    return [
        *(f"{item.value}\t{item.help}" if item.help else item.value for item in items),
        NO_FILES,
    ]


def main() -> None:
    sys.stdout.write("\n".join(complete(sys.argv[1:])) + "\n")
