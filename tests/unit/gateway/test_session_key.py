"""The key of the session pods' tokens, in a file that kubelet replaces."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from wasession_api.session_pod.token_derivation import derive_token, namespace_key
from wasession_gateway.session_key import KeyMissing, SessionKey, decode

OLD, NEW = (namespace_key(master, "sales") for master in (bytes(32), bytes(range(32))))
UID = "0b1c2d3e"


class Volume:
    """A mounted Secret: kubelet writes a new directory and swaps a symbolic link."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._number = directory, 0
        self.path = directory / "session-key"
        self.path.symlink_to("..data/session-key")

    def write(self, content: bytes | None) -> None:
        self._number += 1
        version = self._directory / f"..{self._number}"
        version.mkdir()
        if content is not None:
            (version / "session-key").write_bytes(content)
        link = self._directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._directory / "..data")


def encoded(key: bytes) -> bytes:
    return base64.b64encode(key)


def test_a_rotation(tmp_path: Path) -> None:
    """The pods may have tokens of both keys, and of both epochs."""
    volume = Volume(tmp_path)
    volume.write(encoded(OLD))
    key = SessionKey(volume.path)
    assert key.tokens(UID, 0) == [derive_token(OLD, UID, 0)]
    volume.write(encoded(NEW))
    assert key.tokens(UID, 0) == [derive_token(NEW, UID, 0), derive_token(OLD, UID, 0)]
    assert key.tokens(UID, 2) == [
        derive_token(which, UID, epoch) for which in (NEW, OLD) for epoch in (2, 1)
    ]
    volume.write(encoded(OLD))
    assert key.tokens(UID, 0)[0] == derive_token(OLD, UID, 0), "a rotation is reverted"


@pytest.mark.parametrize("lost", [None, b"", b"nonsense"])
def test_a_key_that_is_lost_stays_in_use(tmp_path: Path, lost: bytes | None) -> None:
    volume = Volume(tmp_path)
    volume.write(encoded(OLD))
    key = SessionKey(volume.path)
    assert key.problem == ""
    volume.write(lost)
    assert key.problem == ""
    assert key.tokens(UID, 0) == [derive_token(OLD, UID, 0)]


def test_a_key_that_is_missing_appears(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    key = SessionKey(volume.path)
    assert key.problem == (
        f"cannot read the session key {volume.path}: No such file or directory; "
        "the operator writes it to the mounted Secret"
    )
    with pytest.raises(KeyMissing, match="No such file"):
        key.tokens(UID, 0)
    volume.write(encoded(OLD))
    assert key.problem == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        OLD,
        encoded(OLD) + b"\n",
        encoded(OLD)[:-1],
        encoded(OLD[:31]) + b"=",
        encoded(OLD + b"x"),
        base64.urlsafe_b64encode(b"\xff" * 32),
        b"!" * 44,
    ],
)
def test_the_error_never_has_the_content(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it must ") as refused:
        decode(content)
    assert not content or content.decode(errors="replace") not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
