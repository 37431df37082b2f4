"""Replace the system calls with which SQLite writes, in this process.

SQLite's own interface for that (``xSetSystemCall`` of its VFS "unix") is what its tests use. The
library is the one that Python's module is linked with.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

WRITES: dict[str, Any] = {
    "pwrite64": ctypes.CFUNCTYPE(
        ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    ),
    "ftruncate": ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64),
    "unlink": ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p),
}


class _Vfs(ctypes.Structure):
    pass


_SET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, ctypes.c_void_p)
_POINTERS = [
    "open", "delete", "access", "full_path", "dl_open", "dl_error", "dl_sym", "dl_close",
    "randomness", "sleep", "current_time", "last_error", "current_time_64",
]  # fmt: skip
_Vfs._fields_ = [
    ("version", ctypes.c_int),
    ("file_size", ctypes.c_int),
    ("longest_path", ctypes.c_int),
    ("next", ctypes.c_void_p),
    ("name", ctypes.c_char_p),
    ("data", ctypes.c_void_p),
    *((name, ctypes.c_void_p) for name in _POINTERS),
    ("set_system_call", _SET),
]
_libc = ctypes.CDLL(None, use_errno=True)
_replaced: dict[str, Any] = {}


def _vfs() -> Any:
    library = ctypes.CDLL(_sqlite3.__file__)  # and with it libsqlite3
    find = library.sqlite3_vfs_find
    find.argtypes, find.restype = [ctypes.c_char_p], ctypes.POINTER(_Vfs)
    return find(b"unix")


def replace(name: str, instead: Callable[..., int]) -> None:
    """Let SQLite call ``instead`` for a system call; it gets the call and its arguments."""
    kind = WRITES[name]
    original = kind((name, _libc))
    _replaced[name] = callback = kind(lambda *arguments: instead(original, *arguments))
    vfs = _vfs()
    code = vfs.contents.set_system_call(vfs, name.encode(), ctypes.cast(callback, ctypes.c_void_p))
    assert code == 0, code


def fail(name: str) -> None:
    """Let a system call fail with an I/O error (errno of a real one is not needed)."""
    replace(name, lambda *_: -1)


def work() -> None:
    """Let all system calls work again."""
    vfs = _vfs()
    for name in _replaced:
        assert vfs.contents.set_system_call(vfs, name.encode(), None) == 0
    _replaced.clear()


def kill_after(count: int) -> None:
    """Kill this process after SQLite has written so many times."""
    left = [count]

    def counted(original: Callable[..., int], *arguments: Any) -> int:
        result = original(*arguments)
        left[0] -= 1
        if left[0] <= 0:
            die()
        return result

    for name in WRITES:
        replace(name, counted)


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)
