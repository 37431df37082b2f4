"""Archives of logins, as a session pod makes them and as nobody should."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyrage
from unit.pod import databases
from wasession_api.session_pod.events import EventKind
from wasession_pod.messages.database import Database
from wasession_pod.messages.event_store import Commit, EventStore, Limits, OutboxRow
from wasession_pod.messages.intake import Entry, Fact
from wasession_pod.volume import archive
from wasession_pod.volume.archive import Made
from wasession_pod.volume.volume import Volume

ACCOUNT = "15551234567@c.us"
OWNER = pyrage.x25519.Identity.generate()
RECIPIENT, IDENTITY = str(OWNER.to_public()), str(OWNER)
LIMITS = Limits(1e9, 2**30)


def logged_in(directory: Path, entries: int = 100) -> Volume:
    """Return the open volume of client ``sales`` with a login."""
    volume = Volume(directory, "sales", "uid-1")
    volume.open()
    databases.login(volume.profile, entries)
    volume.record_login(ACCOUNT)
    return volume


def heard(database: Database, *texts: str, size: int = 0) -> Commit:
    """Store messages in the outbox."""
    store, now = EventStore(database, LIMITS), time.time()
    entries = [
        Entry(EventKind.MESSAGE, json.dumps({"id": text, "text": "x" * size}), Fact(text.encode()))
        for text in texts
    ]
    return store.commit(entries, now, now)


def told(path: Path) -> tuple[OutboxRow, list[str]]:
    """Return the outbox of a file, and its messages' ids."""
    database = Database(path)
    row, events = EventStore(database, LIMITS).read(0, 1000, 2**30, time.time())
    database.close()
    return row, [json.loads(event.data)["id"] for event in events]


def make(
    volume: Volume, database: Database, target: Path, recipients: Iterable[str] = (RECIPIENT,)
) -> Made:
    with target.open("wb") as file:
        return archive.make(volume, database, list(recipients), file, threading.Event())


def encrypt(plain: bytes) -> bytes:
    content: bytes = pyrage.encrypt(plain, [OWNER.to_public()])
    return content


# --- by hand --------------------------------------------------------------------------------------


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a tar file; a header may say something else than its content."""
    stream = io.BytesIO()
    for info, content in members:
        stream.write(info.tobuf(tarfile.PAX_FORMAT))
        stream.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    return stream.getvalue() + bytes(2 * tarfile.BLOCKSIZE)


def index(files: dict[str, bytes], /, **fields: Any) -> bytes:
    """Return an ``archive.json`` for these files."""
    entries = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    moment = "2026-01-02T03:04:05Z"
    content = {
        "version": 1, "client_id": "sales", "account": ACCOUNT, "login": moment,
        "taken_at": moment, "files": entries, **fields,
    }  # fmt: skip
    return json.dumps(content).encode()


def login_json(**fields: Any) -> bytes:
    return json.dumps({"account": ACCOUNT, "since": "2026-01-02T03:04:05Z", **fields}).encode()


def login_files(profile: Path) -> dict[str, bytes]:
    """Return the members of a good archive of a profile."""
    databases.login(profile, 10)
    files = {
        f"login/{path.relative_to(profile)}": path.read_bytes()
        for path in sorted(profile.rglob("*"))
        if path.is_file() and path.name not in ("LOCK", "LOG", "LOG.old")
    }
    return {**files, "login.json": login_json()}


def packed(files: dict[str, bytes], /, **fields: Any) -> bytes:
    """Return a tar file of them with its index."""
    members = {"archive.json": index(files, **fields), **files}
    return tar(member(name, content) for name, content in members.items())
