"""The master key: validated, never shown, and followed when its file changes."""

from __future__ import annotations

import logging
from base64 import b64encode
from pathlib import Path

import pytest
from wasession_api.session_pod.token_derivation import namespace_key
from wasession_operator import __main__ as operator
from wasession_operator.master_key import InvalidMasterKey, MasterKey

KEY, OTHER = bytes(range(32)), bytes(range(100, 140))


def write(path: Path, key: bytes, *, end: bytes = b"") -> None:
    path.write_bytes(b64encode(key) + end)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("key", [KEY, OTHER])
def test_a_key_of_enough_bytes(tmp_path: Path, key: bytes, end: bytes) -> None:
    write(tmp_path / "key", key, end=end)
    assert MasterKey(tmp_path / "key").of("ns") == namespace_key(key, "ns")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b64encode(bytes(31)),
        b"not base64, but quite long: 0123456789",
        b64encode(KEY)[:-1],
        b64encode(KEY) + b"\n" + b64encode(KEY),
        b64encode(KEY).replace(b"A", b"-"),
        KEY,
    ],
)
def test_an_invalid_key_is_refused_without_showing_it(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(InvalidMasterKey) as raised:
        MasterKey(path)
    assert content.decode(errors="replace").strip() == "" or (
        content.decode(errors="replace") not in str(raised.value)
    )
    monkeypatch.setenv("WASESSION_SESSION_IMAGE", "session-pod:1")
    monkeypatch.setenv("WASESSION_MASTER_KEY_FILE", str(path))
    with pytest.raises(SystemExit, match="WASESSION_MASTER_KEY_FILE: it"):
        operator.main()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidMasterKey, match=r"absent: No such file"):
        MasterKey(tmp_path / "absent")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write(path, KEY)
    key = MasterKey(path)
    assert not key.refresh()
    write(path, KEY, end=b"\n")
    assert not key.refresh(), "the same key"
    write(path, OTHER)
    assert key.refresh()
    assert key.of("ns") == namespace_key(OTHER, "ns")
    assert not key.refresh()


def test_an_invalid_change_leaves_the_key_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    write(path, KEY)
    key = MasterKey(path)
    with caplog.at_level(logging.WARNING):
        path.write_bytes(b"short and secret")
        assert not key.refresh()
        path.unlink()
        assert not key.refresh()
    assert key.of("ns") == namespace_key(KEY, "ns")
    assert len(caplog.records) == 2
    assert all("secret" not in str(record.__dict__) for record in caplog.records)
