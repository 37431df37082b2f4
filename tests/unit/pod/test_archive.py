"""Archives: what is in them is what was on the volume, and nothing else is ever taken for it."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.pod import archives, databases
from unit.pod.archives import IDENTITY, RECIPIENT, index, login_json, member, packed, tar
from unit.pod.test_volume import contents
from wasession_pod.messages.database import Database, DatabaseError
from wasession_pod.messages.event_store import EventStore
from wasession_pod.volume import archive
from wasession_pod.volume.archive import ArchiveError
from wasession_pod.volume.snapshots import SnapshotError
from wasession_pod.volume.volume import Login, Volume

OTHER = pyrage.x25519.Identity.generate()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = archives.logged_in(tmp_path / "volume")
    yield volume
    volume.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "volume" / "messages.sqlite")
    yield database
    database.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a good archive."""
    return archives.login_files(tmp_path_factory.mktemp("good"))


def opened(archived: Path, directory: Path, identities: str = IDENTITY) -> Path:
    """Read an archive into a new directory."""
    directory.mkdir()
    archive.decrypt(archived, identities, directory / "plain")
    archive.extract(directory / "plain", directory, "session-support")
    return directory


def extracted(plain: bytes, directory: Path) -> Path:
    directory.mkdir()
    (directory / "plain").write_bytes(plain)
    archive.extract(directory / "plain", directory, "session-support")
    return directory


# --- a good one -----------------------------------------------------------------------------------


def test_what_it_holds_is_what_the_volume_held(
    volume: Volume, database: Database, tmp_path: Path
) -> None:
    archives.heard(database, "1", "2")
    before = contents(volume.profile)
    made = archives.make(volume, database, tmp_path / "archive")
    archives.heard(database, "3")
    databases.write(volume.profile / databases.INDEXED_DB, range(900, 950))
    content = (tmp_path / "archive").read_bytes()
    assert made == (len(content), archive._entry([content]).sha256, made.taken_at)
    assert volume.snapshot is not None
    assert made.taken_at == volume.snapshot.taken_at
    read = opened(tmp_path / "archive", tmp_path / "read")
    assert contents(read / "session-support") == before
    assert archives.told(read / "messages.sqlite")[1] == ["1", "2"]
    assert Login.model_validate_json((read / "login.json").read_bytes()) == volume.login


def test_nothing_of_it_is_readable_without_the_key(
    volume: Volume, database: Database, tmp_path: Path
) -> None:
    archives.heard(database, "a message of somebody")
    archives.make(volume, database, tmp_path / "archive")
    content = (tmp_path / "archive").read_bytes()
    for secret in (b"a message of somebody", archives.ACCOUNT.encode(), b"CURRENT"):
        assert secret not in content


def test_without_messages_it_has_the_login(
    volume: Volume, database: Database, tmp_path: Path
) -> None:
    archives.make(volume, database, tmp_path / "archive")
    read = opened(tmp_path / "archive", tmp_path / "read")
    assert sorted(path.name for path in read.iterdir()) == [
        "login.json", "plain", "session-support",
    ]  # fmt: skip


def test_each_recipient_can_read_it(volume: Volume, database: Database, tmp_path: Path) -> None:
    archives.make(volume, database, tmp_path / "archive", [RECIPIENT, str(OTHER.to_public())])
    opened(tmp_path / "archive", tmp_path / "first")
    written_by_age_keygen = f"# created: 2026-01-02\n# public key: age1…\n{OTHER}\n"
    opened(tmp_path / "archive", tmp_path / "second", written_by_age_keygen)
    opened(tmp_path / "archive", tmp_path / "third", f"{OTHER}\n{IDENTITY}")


def test_it_is_whole_while_events_are_stored(
    volume: Volume, database: Database, tmp_path: Path
) -> None:
    """The copy has no half of a transaction, and nobody's event is lost."""
    archives.heard(database, "first")
    stop, stored = threading.Event(), ["first"]

    def store() -> None:
        while not stop.is_set():
            pair = [f"{len(stored)}-a", f"{len(stored)}-b"]
            archives.heard(database, *pair, size=2000)
            stored.extend(pair)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        for number in range(5):
            archives.make(volume, database, tmp_path / "archive")
            read = opened(tmp_path / "archive", tmp_path / f"read-{number}")
            copied = archives.told(read / "messages.sqlite")[1]
            assert copied[0] == "first"
            assert len(copied) % 2 == 1
    finally:
        stop.set()
        thread.join()
    path = tmp_path / "volume" / "messages.sqlite"
    database.close()
    assert archives.told(path)[1] == stored[:1000]
    assert [one.name for one in path.parent.glob("messages*")] == ["messages.sqlite"]


def test_a_copy_that_a_killed_process_has_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "messages.sqlite.copy").write_bytes(b"half")
    database = Database(tmp_path / "messages.sqlite")
    archives.heard(database, "1")
    assert not (tmp_path / "messages.sqlite.copy").exists()
    database.close()


# --- none can be made -----------------------------------------------------------------------------


def test_without_a_login_there_is_none(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume", "sales", None)
    volume.open()
    with pytest.raises(SnapshotError, match="no login"):
        archives.make(volume, Database(tmp_path / "messages.sqlite"), tmp_path / "archive")
    volume.close()


def test_an_invalid_recipient(volume: Volume, database: Database, tmp_path: Path) -> None:
    wrong = RECIPIENT[:-1] + ("q" if RECIPIENT[-1] != "q" else "p")
    with pytest.raises(ArchiveError, match="recipients is not valid"):
        archives.make(volume, database, tmp_path / "archive", [wrong])


def test_a_session_that_stops_ends_it(volume: Volume, database: Database, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with (tmp_path / "archive").open("wb") as file, pytest.raises(ArchiveError, match="stops"):
        archive.make(volume, database, [RECIPIENT], file, stop)


def test_no_temporary_space(
    volume: Volume, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAXIMUM_SIZE", 2**20)
    with pytest.raises(ArchiveError, match="would have 1 MiB, and there is temporary space for 1"):
        archives.make(volume, database, tmp_path / "archive")


def test_no_space_for_a_copy_of_the_messages(
    volume: Volume, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.heard(database, "1")
    monkeypatch.setattr(volume, "take_snapshot", volume.take_snapshot)
    volume.take_snapshot()
    monkeypatch.setattr(volume, "take_snapshot", lambda: volume.snapshot)
    monkeypatch.setattr(volume, "room", lambda: 1000)
    with pytest.raises(DatabaseError, match="too little space"):
        archives.make(volume, database, tmp_path / "archive")
    assert not list((tmp_path / "volume").glob("*.copy*"))


def test_a_damaged_snapshot_is_not_archived(
    volume: Volume, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.take_snapshot()
    monkeypatch.setattr(volume, "take_snapshot", lambda: None)
    table = next((tmp_path / "volume" / "snapshots").rglob("*.ldb"))
    table.write_bytes(b"x" + table.read_bytes()[1:])
    with pytest.raises(ArchiveError, match=f"{table.name} is damaged"):
        archives.make(volume, database, tmp_path / "archive")


def test_a_disk_that_is_full_is_told(
    volume: Volume, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    with Full(tmp_path / "archive", "w") as file, pytest.raises(OSError, match="No space left"):
        archive.make(volume, database, [RECIPIENT], file, threading.Event())


# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identities", "error"),
    [
        (str(OTHER), "it has other recipients"),
        ("", "no identity"),
        ("# a comment\n\n", "no identity"),
        ("AGE-SECRET-KEY-1QQ", "not one of age"),
        (RECIPIENT, "not one of age"),
    ],
    ids=["other", "none", "comments", "invalid", "recipient"],
)
def test_a_wrong_key(
    volume: Volume, database: Database, tmp_path: Path, identities: str, error: str
) -> None:
    archives.make(volume, database, tmp_path / "archive")
    with pytest.raises(ArchiveError, match=error) as raised:
        opened(tmp_path / "archive", tmp_path / "read", identities)
    assert "SECRET-KEY-1Q" not in str(raised.value)


# --- every way in which one can be wrong ----------------------------------------------------------


def test_the_members_of_a_good_one_are_good(good: dict[str, bytes], tmp_path: Path) -> None:
    read = extracted(packed(good), tmp_path / "read")
    assert [len(content) for content in contents(read / "session-support")] == [30, 30]


def add(name: str, content: bytes = b"x") -> Callable[[dict[str, bytes]], bytes]:
    return lambda good: packed({**good, name: content})


def replace(name: str, content: bytes) -> Callable[[dict[str, bytes]], bytes]:
    return lambda good: packed({**good, name: content})


def index_says(**fields: object) -> Callable[[dict[str, bytes]], bytes]:
    return lambda good: packed(good, **fields)


def raw(*extra: tuple[tarfile.TarInfo, bytes]) -> Callable[[dict[str, bytes]], bytes]:
    """Further members that the index has not."""
    return lambda good: tar(
        [
            member("archive.json", index(good)),
            *(member(name, content) for name, content in good.items()),
            *extra,
        ]
    )


def declared(name: str, content: bytes, **fields: object) -> Callable[[dict[str, bytes]], bytes]:
    """A member that the index has, with a header of another kind."""
    return lambda good: tar(
        [
            member("archive.json", index({**good, name: content})),
            *(member(one, other) for one, other in good.items()),
            member(name, content, **fields),
        ]
    )


def first(name: str, content: bytes) -> Callable[[dict[str, bytes]], bytes]:
    return lambda good: tar([member(name, content)])


def without(name: str) -> Callable[[dict[str, bytes]], bytes]:
    return lambda good: packed({one: other for one, other in good.items() if one != name})


def fewer(good: dict[str, bytes]) -> bytes:
    rest = [member(name, content) for name, content in good.items() if name != "login.json"]
    return tar([member("archive.json", index(good)), *rest])


def twice(good: dict[str, bytes]) -> bytes:
    return raw(member("login.json", good["login.json"]))(good)


def unlike_its_checksum(good: dict[str, bytes]) -> bytes:
    files = {**good, "login.json": good["login.json"][:-1] + b" "}
    return tar([member("archive.json", index(good)), *(member(*one) for one in files.items())])


def damaged_database(good: dict[str, bytes]) -> bytes:
    name = next(name for name in good if name.endswith(".ldb"))
    return packed({**good, name: good[name][:-100]})


def without_a_database(good: dict[str, bytes]) -> bytes:
    return packed({name: one for name, one in good.items() if "Local Storage" not in name})


PART = "login/Default/IndexedDB"
WRONG: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "no tar": (lambda good: b"hello" * 1000, "no tar file"),
    "empty": (lambda good: b"", "no tar file"),
    "zeros": (lambda good: bytes(2048), "first member"),
    "other first member": (first("login.json", b"{}"), "first member"),
    "index is no JSON": (first("archive.json", b"{"), "archive.json is not readable"),
    "index is a list": (first("archive.json", b"[]"), "archive.json is not readable"),
    "index is too large": (
        lambda good: tar([member("archive.json", b" " * 600, size=17 * 2**20)]),
        "no file of the right size",
    ),
    "newer": (index_says(version=2), "version is 2, and this image knows 1"),
    "no version": (index_says(version=None), "archive.json is not readable"),
    "negative version": (index_says(version=-1), "archive.json is not readable"),
    "other account": (index_says(account="1@c.us"), "of another login"),
    "other login": (index_says(login="2026-01-02T03:04:06Z"), "of another login"),
    "no login.json": (without("login.json"), "no login.json"),
    "login.json is none": (replace("login.json", b"{}"), "login.json is not readable"),
    "login.json of another": (
        replace("login.json", login_json(account="2@c.us")), "of another login",
    ),
    "parent": (add(f"{PART}/../../../../owner.json"), "does not belong"),
    "absolute": (add("/etc/passwd"), "does not belong"),
    "absolute within": (add("login//etc/passwd"), "does not belong"),
    "dot": (add(f"{PART}/./x"), "does not belong"),
    "empty name": (add(""), "does not belong"),
    "directory name": (add(f"{PART}/x/"), "does not belong|not in its index"),
    "the part itself": (add(PART), "does not belong"),
    "part with a suffix": (add(f"{PART}x/y"), "does not belong"),
    "other part of the profile": (add("login/Default/Preferences"), "does not belong"),
    "other file of the volume": (add("owner.json"), "does not belong"),
    "lock": (add("lock"), "does not belong"),
    "other spelling": (add("./login.json"), "does not belong"),
    "log of SQLite": (add("messages.sqlite-wal"), "does not belong"),
    "long name": (add(f"{PART}/{'x' * 256}"), "does not belong"),
    "long path": (add(f"{PART}/{'x/' * 600}x"), "does not belong"),
    "NUL": (add(f"{PART}/x\0y"), "not in its index|does not belong"),
    "not in the index": (raw(member(f"{PART}/x", b"x")), "not in its index"),
    "index twice": (raw(member("archive.json", b"{}")), "not in its index"),
    "twice": (twice, "not in its index, or has it twice"),
    "fewer": (fewer, "fewer members than its index"),
    "checksum": (unlike_its_checksum, "login.json does not match its checksum"),
    "symbolic link": (
        declared(f"{PART}/x", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no file",
    ),
    "hard link": (
        declared(f"{PART}/x", b"", type=tarfile.LNKTYPE, linkname="login.json"), "no file",
    ),
    "device": (declared(f"{PART}/x", b"", type=tarfile.CHRTYPE), "no file"),
    "pipe": (declared(f"{PART}/x", b"", type=tarfile.FIFOTYPE), "no file"),
    "directory": (declared(f"{PART}/x", b"", type=tarfile.DIRTYPE), "no file"),
    "sparse": (
        declared(f"{PART}/x", b"", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "99"}),
        "no file|no tar file",
    ),
    "larger than it says": (declared(f"{PART}/x", b"xy", size=3), "right size"),
    "smaller than it says": (declared(f"{PART}/x", b"xy", size=1), "checksum"),
    "negative size": (
        index_says(files={"login.json": {"size": -1, "sha256": "0" * 64}}), "not readable",
    ),
    "bomb": (
        index_says(files={"login.json": {"size": 2**40, "sha256": "0" * 64}}),
        "larger than it is itself",
    ),
    "endless headers": (
        lambda good: tar([member("x", type=tarfile.GNUTYPE_LONGNAME)] * 5000),
        "no tar file|first member",
    ),
    "file and directory": (
        lambda good: packed({**good, f"{PART}/a": b"x", f"{PART}/a/b": b"x"}),
        "a file is a directory",
    ),
    "directory and file": (
        lambda good: packed({**good, f"{PART}/a/b": b"x", f"{PART}/a": b"x"}),
        "a file is a directory",
    ),
    "damaged database": (damaged_database, "login is damaged"),
    "no database": (without_a_database, "there is no database"),
    "no files": (lambda good: packed({"login.json": login_json()}), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_one_is_refused(what: str, good: dict[str, bytes], tmp_path: Path) -> None:
    make, error = WRONG[what]
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(ArchiveError, match=error):
        extracted(make(good), outside / "read")
    assert [path.name for path in outside.iterdir()] == ["read"]
    for path in (outside / "read").rglob("*"):
        assert path.is_dir() or (path.is_file() and not path.is_symlink())
        assert path.stat().st_nlink == 1 or path.is_dir()
        assert path.stat().st_size < 2**20 or path.name == "plain"


SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(data=st.data())
@SLOW
def test_any_change_of_an_encrypted_one_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(SEALED)
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    directory = tmp_path_factory.mktemp("changed")
    (directory / "archive").write_bytes(content)
    with pytest.raises(ArchiveError):
        archive.decrypt(directory / "archive", IDENTITY, directory / "plain")


SEALED = archives.encrypt(bytes(range(256)) * 600)


@given(data=st.data())
@SLOW
def test_a_changed_tar_file_is_the_same_or_refused(
    data: st.DataObject, good: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    plain = bytearray(packed(good))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(plain) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert", "repeat"])):
            case "change":
                plain[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del plain[at:]
            case "insert":
                plain[at:at] = data.draw(st.binary(min_size=1, max_size=600))
            case "repeat":
                block = at // 512 * 512
                plain[block:block] = plain[block : block + 512]
        if not plain:
            break
    directory = tmp_path_factory.mktemp("changed") / "read"
    try:
        extracted(bytes(plain), directory)
    except ArchiveError:
        return
    for name, content in good.items():
        path = directory / name.replace("login/", "session-support/", 1)
        assert path.read_bytes() == content


names = st.text(
    st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)


@given(files=st.dictionaries(names, st.binary(max_size=2000), max_size=6))
@SLOW
def test_any_names_and_contents_come_back(
    files: dict[str, bytes], good: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As ``make`` writes them: blobs of IndexedDB, for example."""
    blobs = {f"{PART}/x.blob/{name}": content for name, content in files.items()}
    members = {**good, **blobs}
    everything = {"archive.json": index(members), **members}
    sources = {
        name: archive.Source(archive._entry([content]), content)
        for name, content in everything.items()
    }
    plain = b"".join(archive._tar(sources, threading.Event()))
    read = extracted(plain, tmp_path_factory.mktemp("names") / "read")
    for name, content in blobs.items():
        assert (read / name.replace("login/", "session-support/", 1)).read_bytes() == content


def test_an_outbox_that_was_copied_is_still_an_outbox(
    volume: Volume, database: Database, tmp_path: Path
) -> None:
    """The copy needs no other file, and can be written at once."""
    archives.heard(database, "1")
    archives.make(volume, database, tmp_path / "archive")
    read = opened(tmp_path / "archive", tmp_path / "read")
    copy = Database(read / "messages.sqlite")
    assert archives.heard(copy, "1", "2").outbox.last == 2
    assert EventStore(copy, archives.LIMITS).awaited_acks() == []
    copy.close()
