"""Access to the volume's files for another user ID of the same group.

Kubernetes gives a volume a group (``fsGroup``), but the user ID may change with the pod: OpenShift
draws it for each namespace. Chromium creates its files for its own user alone, whatever the umask.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def share_with_group(top: Path) -> str | None:
    """Give the group what the owner may do, for this user's files below ``top``, and ``top``.

    Return which file is not accessible for this user; None if all are. Raises ``OSError``.
    """
    user = os.geteuid()
    for path, status in _walk(top):
        if status.st_uid == user:
            mode = stat.S_IMODE(status.st_mode)
            shared = mode | (mode & stat.S_IRWXU) >> 3
            if shared != mode:
                with contextlib.suppress(OSError):  # a file system without modes, or it has gone
                    path.chmod(shared)
        elif not os.access(path, _needed(status.st_mode)) and path.exists():
            return (
                f"{path.relative_to(top)} belongs to user {status.st_uid} and is not accessible "
                f"for user {user} with the groups {sorted({os.getegid(), *os.getgroups()})}"
            )
    return None


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield directories and files, parents first, without symbolic links."""
    pending = [top]
    while pending:
        path = pending.pop()
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                pending += path.iterdir()


def _needed(mode: int) -> int:
    return os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)
