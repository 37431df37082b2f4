"""What is wrong with the mounted files that the browser starts with, and what has changed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from support.certificate_authority import CertificateAuthority
from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import Reason
from wasession_pod.browser import certificates, launch_files
from wasession_pod.browser.errors import NotStartable
from wasession_pod.browser.launch_files import LaunchFiles, UsableFiles
from wasession_pod.browser.proxy import Proxy
from wasession_pod.settings import Settings

A_PROXY, ANOTHER = Proxy("http://a.example:3128"), Proxy("http://b.example:3128")
INVALID = Notice(reason=Reason.PROXY_INVALID, message="Key server is missing.")
AUTHORITIES = CertificateAuthority().pem + b"# a comment\n" + CertificateAuthority().pem


SHA256 = "0" * 64
INVALID_SCRIPT = Notice(reason=Reason.WA_JS_INVALID, message="wa-js does not exist.")
INVALID_DOCUMENT = Notice(reason=Reason.DOCUMENT_INVALID, message="It does not exist.")


def settings(**given: Any) -> Settings:
    return Settings(client_id="sales", token="t", **given)


def mount(directory: Path, version: str, content: dict[str, str]) -> None:
    """Write a Secret as kubelet does: all files change at once, by one link."""
    (directory / version).mkdir(parents=True)
    for key, value in content.items():
        (directory / version / key).write_text(value)
        if not (directory / key).is_symlink():
            (directory / key).symlink_to(Path("..data") / key)
    (directory / "next").symlink_to(version)
    (directory / "next").rename(directory / "..data")


def test_nothing_is_read_where_nothing_is_configured() -> None:
    files = launch_files.read(settings())
    assert files == LaunchFiles()
    assert launch_files.require(files) == UsableFiles()


def test_a_mounted_secret(tmp_path: Path) -> None:
    mount(tmp_path, "..1", {"server": "http://proxy:3128"})
    first = launch_files.read(settings(proxy_directory=tmp_path))
    assert first.proxy == Proxy("http://proxy:3128")
    mount(tmp_path, "..2", {"server": "http://proxy:3129", "username": "u"})
    second = launch_files.read(settings(proxy_directory=tmp_path))
    assert second.proxy == Proxy("http://proxy:3129", ("u", ""))  # type: ignore[arg-type]


def test_all_keys_are_of_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path, "..1", {"server": "old:1", "username": "old", "password": "old"})
    read_bytes = Path.read_bytes

    def replaced_meanwhile(path: Path) -> bytes:
        content = read_bytes(path)
        if path.name == "server" and content == b"old:1":
            mount(tmp_path, "..2", {"server": "new:1", "username": "new", "password": "new"})
        return content

    monkeypatch.setattr(Path, "read_bytes", replaced_meanwhile)
    proxy = launch_files.read(settings(proxy_directory=tmp_path)).proxy
    assert isinstance(proxy, Proxy)
    assert (proxy.address, proxy.credentials) == ("new:1", ("new", "new"))


@pytest.mark.parametrize("existing", [True, False])
def test_a_missing_proxy_names_the_key(tmp_path: Path, existing: bool) -> None:
    directory = tmp_path / "proxy"
    if existing:
        directory.mkdir()
    with pytest.raises(NotStartable) as error:
        launch_files.require(launch_files.read(settings(proxy_directory=directory)))
    assert error.value.reason == Reason.PROXY_INVALID
    assert f"Key server of the proxy's Secret ({directory}/server) is missing." in str(error.value)


def test_a_proxy_that_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "proxy").touch()
    files = launch_files.read(settings(proxy_directory=tmp_path / "proxy"))
    with pytest.raises(NotStartable, match="is not readable: Not a directory"):
        launch_files.require(files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b" \n", "is empty"),
        (b"not a certificate", "contains no certificate in PEM"),
        (AUTHORITIES[:-40], "ends within a certificate"),
        (
            AUTHORITIES + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "has a certificate that is not readable: number 3",
        ),
    ],
)
def test_an_invalid_bundle_says_what_is_wrong(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotStartable, match=re.escape(f"{path} {message}")) as error:
        launch_files.require(launch_files.read(settings(ca_bundle=path)))
    assert error.value.reason == Reason.CA_BUNDLE_INVALID


def test_a_bundle_is_all_of_its_certificates() -> None:
    assert len(certificates.parse(AUTHORITIES)) == 2
    assert len(certificates.parse(AUTHORITIES + AUTHORITIES)) == 2, "each of them once"


def test_a_bundle_that_cannot_be_imported_prevents_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotStartable, match=r"ca\.crt could not be imported: .*certutil") as error:
        launch_files.make_home(tmp_path / "ca.crt", CertificateAuthority().pem)
    assert error.value.reason == Reason.CA_BUNDLE_INVALID


DOCUMENT = b"<!DOCTYPE html><html></html>"


def test_wa_js_and_a_document_from_config_maps(tmp_path: Path) -> None:
    (tmp_path / "wa-js").write_bytes(b"window.WPP = {}")
    (tmp_path / "document").write_bytes(DOCUMENT)
    given = settings(
        wa_js=tmp_path / "wa-js",
        wa_js_sha256=hashlib.sha256(b"window.WPP = {}").hexdigest(),
        document=tmp_path / "document",
        document_sha256=hashlib.sha256(DOCUMENT).hexdigest(),
    )
    files = launch_files.require(launch_files.read(given))
    assert files == UsableFiles(wa_js=b"window.WPP = {}", document=DOCUMENT)


@pytest.mark.parametrize(
    ("reason", "given", "field"),
    [
        (Reason.WA_JS_INVALID, {"wa_js_sha256": SHA256}, "waJS"),
        (Reason.DOCUMENT_INVALID, {"document_sha256": SHA256}, "whatsappDocument"),
    ],
)
def test_a_file_that_is_not_there_prevents_a_start(
    tmp_path: Path, reason: Reason, given: dict[str, str], field: str
) -> None:
    path = tmp_path / "file"
    setting = "wa_js" if reason is Reason.WA_JS_INVALID else "document"
    with pytest.raises(NotStartable, match=re.escape(str(path))) as error:
        launch_files.require(launch_files.read(settings(**given, **{setting: path})))
    assert error.value.reason is reason
    assert f"{field} of the WhatsAppSessionClass) does not exist" in str(error.value)


def test_a_document_is_html(tmp_path: Path) -> None:
    (tmp_path / "document").write_bytes(b"404: Not Found")
    sha256 = hashlib.sha256(b"404: Not Found").hexdigest()
    given = settings(document=tmp_path / "document", document_sha256=sha256)
    with pytest.raises(NotStartable, match="is not HTML") as error:
        launch_files.require(launch_files.read(given))
    assert error.value.reason is Reason.DOCUMENT_INVALID


@pytest.mark.parametrize(
    ("started", "current", "reasons"),
    [
        (LaunchFiles(A_PROXY, b"1"), LaunchFiles(A_PROXY, b"1"), []),
        (LaunchFiles(A_PROXY), LaunchFiles(ANOTHER), [Reason.PROXY_CHANGED]),
        (LaunchFiles(A_PROXY), LaunchFiles(INVALID), [Reason.PROXY_INVALID]),
        (LaunchFiles(None, b"1"), LaunchFiles(None, b"2"), [Reason.CA_BUNDLE_CHANGED]),
        (
            LaunchFiles(A_PROXY, b"1"),
            LaunchFiles(ANOTHER, b"2"),
            [Reason.PROXY_CHANGED, Reason.CA_BUNDLE_CHANGED],
        ),
        (LaunchFiles(wa_js=b"1", document=b"1"), LaunchFiles(wa_js=b"1", document=b"1"), []),
        (
            LaunchFiles(wa_js=b"1", document=b"1"),
            LaunchFiles(wa_js=INVALID_SCRIPT, document=INVALID_DOCUMENT),
            [Reason.WA_JS_INVALID, Reason.DOCUMENT_INVALID],
        ),
    ],
)
def test_what_has_changed(
    started: LaunchFiles, current: LaunchFiles, reasons: list[Reason]
) -> None:
    changes = launch_files.changes(started, current)
    assert [notice.reason for notice in changes] == reasons
    assert not any(".example" in notice.message for notice in changes)
