"""Mounted files that the settings name by their SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest
from wasession_pod.browser import verified_file
from wasession_pod.browser.verified_file import InvalidFile, require_html, wa_js_version
from wasession_pod.settings import DEVELOPMENT_WA_JS

SCRIPT = b"window.WPP = {};\n"
OTHER = "0" * 64


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write as kubelet does: another file takes the place of the old one."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


@pytest.mark.parametrize("packed", [False, True])
def test_the_content_is_that_of_the_hash(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "wa-js"
    write(path, gzip.compress(SCRIPT) if packed else SCRIPT)
    assert verified_file.read(path, sha256(SCRIPT)) == SCRIPT


def test_each_content_is_verified(tmp_path: Path) -> None:
    """Of the same size and, on a coarse clock, the same time."""
    path = tmp_path / "wa-js"
    write(path, SCRIPT)
    verified_file.read(path, sha256(SCRIPT))
    write(path, SCRIPT.swapcase())
    with pytest.raises(InvalidFile, match=sha256(SCRIPT.swapcase())):
        verified_file.read(path, sha256(SCRIPT))
    write(path, SCRIPT)
    assert verified_file.read(path, sha256(SCRIPT)) == SCRIPT


HUGE = bytes(verified_file.MAXIMUM + 1)


@pytest.mark.parametrize(
    ("content", "expected", "problem"),
    [
        (SCRIPT, OTHER, f"has the SHA-256 {sha256(SCRIPT)} instead of {OTHER}"),
        (SCRIPT[:-5], sha256(SCRIPT), "has the SHA-256 "),
        (b"", sha256(SCRIPT), "has the SHA-256 "),
        (gzip.compress(SCRIPT)[:-4], sha256(SCRIPT), "ends within its gzip"),
        (verified_file.GZIP + b"?" * 40, sha256(SCRIPT), "is not valid gzip"),
        (HUGE, sha256(HUGE), "is larger than 8 MiB"),
        (gzip.compress(HUGE), sha256(HUGE), "is larger than 8 MiB"),
        (b"\xff\xfe", sha256(b"\xff\xfe"), "is not text in UTF-8"),
    ],
    ids=["other", "truncated", "empty", "short-gzip", "bad-gzip", "large", "bomb", "binary"],
)
def test_what_is_not_usable(tmp_path: Path, content: bytes, expected: str, problem: str) -> None:
    (path := tmp_path / "wa-js").write_bytes(content)
    with pytest.raises(InvalidFile, match=f"^{re.escape(problem)}"):
        verified_file.read(path, expected)


def test_a_missing_config_map_is_not_a_missing_key(tmp_path: Path) -> None:
    directory = tmp_path / "mount"
    directory.mkdir()
    (directory / "..data").symlink_to("..1")  # as in the volume of an optional ConfigMap
    with pytest.raises(InvalidFile, match="no such ConfigMap"):
        verified_file.read(directory / "wa-js", OTHER)
    (directory / "b").touch()
    (directory / "a").touch()
    with pytest.raises(InvalidFile, match=r"the ConfigMap has the keys a, b$"):
        verified_file.read(directory / "wa-js", OTHER)


def test_a_directory_is_not_readable(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="is not readable: Is a directory"):
        verified_file.read(tmp_path, OTHER)


@pytest.mark.parametrize(
    "document",
    [
        b"<!DOCTYPE html><html></html>",
        b"\xef\xbb\xbf\n<!-- saved --> <!doctype HTML><html lang=en></HTML>\n",
        b"<html><body></body></html>",
    ],
)
def test_html(document: bytes) -> None:
    require_html(document)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"", "is not HTML"),
        (b"404: Not Found", "is not HTML"),
        (b'{"html": "<html></html>"}', "is not HTML"),
        (b"<htmlx></html>", "is not HTML"),
        (b"<!-- -->" * 500 + b"<head>", "is not HTML"),
        (b"<!DOCTYPE html><html><body>", "is not all of a document"),
    ],
)
def test_what_is_not_html(document: bytes, problem: str) -> None:
    with pytest.raises(InvalidFile, match=problem):
        require_html(document)


def test_wa_js_names_its_version() -> None:
    assert wa_js_version(DEVELOPMENT_WA_JS.read_bytes()) == "4.6.0"
    assert wa_js_version(b"/*! wppconnect-team/wa-js v4.7.0-rc.1 */") == "4.7.0-rc.1"
    assert wa_js_version(b"window.WPP = {}") is None
