"""The volume: taken by one, refused when it is another's, and never emptied."""

from __future__ import annotations

from pathlib import Path

import pytest
from wasession_api.v1alpha1 import Reason
from wasession_pod.storage import StorageError, Volume


def opened(directory: Path, client_id: str = "sales", uid: str | None = "uid-1") -> Volume:
    volume = Volume(directory, client_id, uid)
    volume.open()
    return volume


def refused(volume: Volume) -> Reason:
    with pytest.raises(StorageError) as error:
        volume.open()
    return error.value.reason


def test_it_says_how_it_was_left(tmp_path: Path) -> None:
    volume = Volume(tmp_path, "sales", None)
    assert volume.open() is None
    volume.close()
    graceful = Volume(tmp_path, "sales", None).open()
    assert graceful is not None
    assert graceful.graceful


def test_a_killed_process_is_told_apart(tmp_path: Path) -> None:
    volume = opened(tmp_path)
    volume.close()
    (tmp_path / "run.json").write_text('{"started_at": "2026-01-02T03:04:05Z"}')
    left = Volume(tmp_path, "sales", "uid-1").open()
    assert left is not None
    assert not left.graceful


def test_two_processes_never_share_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    second = Volume(tmp_path, "sales", "uid-1")
    assert refused(second) == Reason.VOLUME_IN_USE
    first.close()
    second.open()


def test_another_clients_volume_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert refused(Volume(tmp_path, "other", "uid-1")) == Reason.VOLUME_OF_ANOTHER_SESSION
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_profile_of_nobody_known_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "session-other").mkdir()
    assert refused(Volume(tmp_path, "sales", "uid-1")) == Reason.VOLUME_OF_ANOTHER_SESSION


def test_an_unreadable_owner_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_text("{")
    assert refused(Volume(tmp_path, "sales", "uid-1")) == Reason.VOLUME_OF_ANOTHER_SESSION
    assert (tmp_path / "owner.json").read_text() == "{"


def test_a_new_session_object_adopts_it(tmp_path: Path) -> None:
    opened(tmp_path, uid="uid-1").close()
    opened(tmp_path, uid="uid-2").close()


def test_a_nearly_full_volume_is_refused(tmp_path: Path) -> None:
    assert refused(Volume(tmp_path, "sales", None, minimum_free_bytes=2**60)) == Reason.VOLUME_FULL


def test_a_volume_that_cannot_be_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(Volume(tmp_path / "file", "sales", None)) == Reason.VOLUME_READ_ONLY


def test_a_lock_of_another_host_is_removed_under_ours(tmp_path: Path) -> None:
    profile = tmp_path / "session-sales"
    profile.mkdir()
    (tmp_path / "owner.json").write_text('{"client_id": "sales", "session_uid": null}')
    (profile / "SingletonLock").symlink_to("another-host-17")
    opened(tmp_path, uid=None)
    assert not (profile / "SingletonLock").is_symlink()


def test_an_ended_login_is_moved_aside_whole(tmp_path: Path) -> None:
    volume = opened(tmp_path)
    (volume.profile / "Default").mkdir()
    (volume.profile / "Default" / "login").write_text("keys")
    volume.keep_login("15551234567@c.us")
    kept = [volume.set_aside()]
    assert volume.login is None
    assert (kept[0] / "Default" / "login").read_text() == "keys"
    assert list(volume.profile.iterdir()) == []
    kept.append(volume.set_aside())
    assert len(set(kept)) == 2


def test_a_login_is_known_after_a_restart(tmp_path: Path) -> None:
    volume = opened(tmp_path)
    assert volume.login is None
    volume.keep_login("15551234567@c.us")
    volume.close()
    again = opened(tmp_path)
    assert again.login is not None
    assert again.login.account == "15551234567@c.us"
