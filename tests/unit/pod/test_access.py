"""Files of the volume for another user ID of its group."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from unit.pod import databases
from wasession_api.v1alpha1 import Reason
from wasession_pod.volume import access
from wasession_pod.volume.volume import StorageError, Volume


def modes(top: Path) -> set[tuple[bool, str]]:
    return {
        (path.is_dir(), oct(stat.S_IMODE(path.stat().st_mode) & 0o770)) for path in top.rglob("*")
    }


def test_the_group_may_do_what_the_owner_may(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o700)
    (tmp_path / "directory" / "file").touch(mode=0o600)
    (tmp_path / "link").symlink_to("/nowhere")
    assert access.share_with_group(tmp_path) is None
    (tmp_path / "link").unlink()
    assert modes(tmp_path) == {(True, "0o770"), (False, "0o660")}


def test_a_closed_and_an_opened_volume_are_shared(tmp_path: Path) -> None:
    volume = Volume(tmp_path, "sales", None)
    volume.open()
    databases.login(volume.profile, 10)
    (volume.profile / "Preferences").touch(mode=0o600)
    volume.record_graceful_close()
    assert modes(tmp_path) == {(True, "0o770"), (False, "0o660")}
    volume.close()
    (volume.profile / "Cookies").touch(mode=0o600)  # by a Chromium that was killed
    Volume(tmp_path, "sales", None).open()
    assert oct(stat.S_IMODE((volume.profile / "Cookies").stat().st_mode)) == "0o660"


def test_private_files_of_another_user_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(tmp_path, "sales", None)
    volume.open()
    volume.close()
    (volume.profile / "Preferences").touch(mode=0o600)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 1000660000)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "Preferences")
    with pytest.raises(StorageError) as error:
        Volume(tmp_path, "sales", None).open()
    assert error.value.reason == Reason.VOLUME_NOT_ACCESSIBLE
    assert (
        f"session-sales/Preferences belongs to user {owner} and is not accessible for user "
        "1000660000" in str(error.value)
    )
