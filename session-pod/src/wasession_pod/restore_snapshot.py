"""``python -m wasession_pod.restore_snapshot``: make a copied volume this session's, then exit.

The volume is made from a VolumeSnapshot of another session's. It has all that one had at that
moment, as after a power cut: the proven login, snapshots of it, messages. The pod's init container
runs this before the session starts, and again after each failure. At whatever moment it is killed,
it has done everything, or does it again.
"""

from __future__ import annotations

from wasession_pod.messages.database import DatabaseError
from wasession_pod.restore import BackupSettings, RestoreError, renew_messages, run, volume_of
from wasession_pod.volume.volume import StorageError


def adopt(settings: BackupSettings) -> bool:
    """Make the volume this session's; return False if it is. Raises ``RestoreError``."""
    volume = volume_of(settings)
    try:
        if not volume.begin_adoption(settings.restore_backup, settings.restore_login_id):
            return False
        # Messages before the record: what is told of them is this session's from the beginning.
        renew_messages(settings.data_dir)
        volume.commit_adoption(settings.restore_backup)
    except StorageError as error:
        raise RestoreError(str(error)) from None
    except DatabaseError as error:
        raise RestoreError(f"the volume's messages are not usable: {error}") from None
    finally:
        volume.close()
    return True


if __name__ == "__main__":
    run(BackupSettings, adopt)
