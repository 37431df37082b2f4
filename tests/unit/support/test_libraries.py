"""A build of an image fails when a library is missing."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[3] / "images"


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    linked = runpy.run_path(str(IMAGES / "debian.py"))["_linked"]
    python = Path(sys.executable).resolve()
    assert linked(python)["libc.so.6"].exists()
    broken = tmp_path / "python"
    broken.write_bytes(python.read_bytes().replace(b"libc.so.6", b"libx.so.6"))
    assert linked(broken)["libx.so.6"] is None
