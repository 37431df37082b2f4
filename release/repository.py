"""The git repository that a release is built from."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path


class Repository:
    """A checkout. All methods raise ``subprocess.CalledProcessError`` where there is none."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def is_clean(self) -> bool:
        return self._git("status", "--porcelain") == ""

    @property
    def revision(self) -> str:
        return self._git("rev-parse", "HEAD")

    @property
    def committed_at(self) -> datetime:
        return datetime.fromtimestamp(int(self._git("show", "--no-patch", "--format=%ct")), UTC)

    def other_commit_of(self, tag: str) -> str | None:
        """Return the commit that has the tag, if it is not the present one."""
        if self._git("tag", "--list", tag) == "":
            return None
        commit = self._git("rev-parse", f"{tag}^{{commit}}")
        return commit if commit != self.revision else None

    def messages_since_release(self, tag: str) -> list[str]:
        """Return the messages of the commits since the latest release before ``tag``."""
        tags = self._git("tag", "--merged", "HEAD", "--sort=-creatordate", "--list", "v*").split()
        earlier = [found for found in tags if found != tag]
        commits = f"{earlier[0]}..HEAD" if earlier else "HEAD"
        return [
            message.strip()
            for message in self._git("log", "--no-merges", "--format=%B%x00", commits).split("\0")
            if message.strip()
        ]

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self._root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
