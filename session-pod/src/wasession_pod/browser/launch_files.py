"""The mounted files that the browser starts with.

A proxy's Secret, a bundle of certificates, and wa-js and a document of WhatsApp Web from
ConfigMaps. kubelet updates them within about a minute of a change. A running browser is not
affected; the next one starts with the new content.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import Reason

from wasession_pod.browser import verified_file
from wasession_pod.browser.errors import NotStartable
from wasession_pod.browser.proxy import KEYS, InvalidKey, Proxy, parse_proxy
from wasession_pod.browser.verified_file import InvalidFile
from wasession_pod.settings import Settings

# Why a browser cannot start with them.
REASONS = (
    Reason.PROXY_INVALID,
    Reason.CA_BUNDLE_INVALID,
    Reason.WA_JS_INVALID,
    Reason.DOCUMENT_INVALID,
)


class LaunchFiles(NamedTuple):
    """The content of the files; None where none are configured, a ``Notice`` where it is invalid.

    Not for logs: the proxy's Secret is part of it.
    """

    proxy: Proxy | Notice | None = None
    ca_bundle: bytes | Notice | None = None
    wa_js: bytes | Notice | None = None
    document: bytes | Notice | None = None


class UsableFiles(NamedTuple):
    """The content of files that a browser can start with; None where none are configured."""

    proxy: Proxy | None = None
    ca_bundle: bytes | None = None
    wa_js: bytes | None = None
    document: bytes | None = None


def read(settings: Settings) -> LaunchFiles:
    """Return the files' present content."""
    return LaunchFiles(
        None if settings.proxy_directory is None else _read_proxy(settings.proxy_directory),
        None if settings.ca_bundle is None else _read_ca_bundle(settings.ca_bundle),
        None if settings.wa_js_sha256 is None else _read_wa_js(settings),
        None if settings.document is None else _read_document(settings),
    )


def require(files: LaunchFiles) -> UsableFiles:
    """Return the files to start with; raise ``NotStartable``."""
    proxy, ca_bundle, wa_js, document = files
    for file, reason in zip(files, REASONS, strict=True):
        if isinstance(file, Notice):
            raise NotStartable(reason, file.message)
    assert not isinstance(proxy, Notice)
    assert not isinstance(ca_bundle, Notice)
    assert not isinstance(wa_js, Notice)
    assert not isinstance(document, Notice)
    return UsableFiles(proxy, ca_bundle, wa_js, document)


def changes(started: LaunchFiles, current: LaunchFiles) -> tuple[Notice, ...]:
    """Return what has changed since a browser was started that still runs.

    Files that are named by their hash can become invalid, but not change.
    """
    notices = []
    names = (
        (Reason.PROXY_CHANGED, "proxy's Secret"),
        (Reason.CA_BUNDLE_CHANGED, "CA bundle"),
        (Reason.WA_JS_INVALID, "wa-js"),
        (Reason.DOCUMENT_INVALID, "pinned document"),
    )
    for before, now, (reason, name) in zip(started, current, names, strict=True):
        if isinstance(now, Notice):
            message = f"{now.message} The running browser continues with the previous content."
            notices.append(Notice(reason=now.reason, message=message))
        elif now != before:
            message = (
                f"The {name} has changed since the browser was started. "
                "The change takes effect when the pod is replaced or the browser restarts."
            )
            notices.append(Notice(reason=reason, message=message))
    return tuple(notices)


def _read_proxy(directory: Path) -> Proxy | Notice:
    try:
        return parse_proxy(_read_secret(directory, KEYS))
    except InvalidKey as error:
        path, problem = directory / error.key, str(error)
        subject = f"Key {error.key} of the proxy's Secret ({path})"
    except OSError as error:
        subject, problem = f"The proxy's Secret ({directory})", f"is not readable: {error.strerror}"
    message = f"{subject} {problem}. No browser starts without the proxy."
    return Notice(reason=Reason.PROXY_INVALID, message=message)


def _read_secret(directory: Path, keys: Sequence[str]) -> dict[str, bytes]:
    """Return the content by key, all of one version of the Secret; raise ``OSError``.

    kubelet replaces all files at once by replacing the link ``..data``.
    """
    while True:
        version, content = _version(directory), {}
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                content[key] = (directory / key).read_bytes()
        if _version(directory) == version:
            return content


def _version(directory: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return str((directory / "..data").readlink())
    return None


def _read_ca_bundle(path: Path) -> bytes | Notice:
    from wasession_pod.browser import certificates

    try:
        bundle = path.read_bytes()
        certificates.parse(bundle)
        return bundle
    except FileNotFoundError:
        problem = "does not exist"
    except OSError as error:
        problem = f"is not readable: {error.strerror}"
    except certificates.InvalidBundle as error:
        problem = str(error)
    return _invalid_ca_bundle(path, problem)


def make_home(path: Path, bundle: bytes) -> Path:
    """Return a home directory in which Chromium trusts a bundle; raise ``NotStartable``."""
    from wasession_pod.browser import certificates

    try:
        return certificates.make_home(bundle)
    except (certificates.InvalidBundle, OSError, subprocess.SubprocessError) as error:
        notice = _invalid_ca_bundle(path, f"could not be imported: {error}")
        raise NotStartable(Reason.CA_BUNDLE_INVALID, notice.message) from None


def _invalid_ca_bundle(path: Path, problem: str) -> Notice:
    """Return why no browser starts with a bundle; ``problem`` is a predicate."""
    message = f"The CA bundle {path} {problem}. The browser starts once that is corrected."
    return Notice(reason=Reason.CA_BUNDLE_INVALID, message=message)


def _read_wa_js(settings: Settings) -> bytes | Notice:
    """Return wa-js from a ConfigMap, or why no browser starts without it."""
    assert settings.wa_js_sha256 is not None
    try:
        return verified_file.read(settings.wa_js, settings.wa_js_sha256)
    except InvalidFile as error:
        subject = f"wa-js ({settings.wa_js}, waJS of the WhatsAppSessionClass)"
        return _invalid_file(Reason.WA_JS_INVALID, subject, error)


def _read_document(settings: Settings) -> bytes | Notice:
    """Return the pinned document, or why no browser starts without it."""
    assert settings.document is not None
    assert settings.document_sha256 is not None
    try:
        document = verified_file.read(settings.document, settings.document_sha256)
        verified_file.require_html(document)
    except InvalidFile as error:
        subject = (
            f"The pinned document ({settings.document}, "
            "whatsappDocument of the WhatsAppSessionClass)"
        )
        return _invalid_file(Reason.DOCUMENT_INVALID, subject, error)
    return document


def _invalid_file(reason: Reason, subject: str, error: InvalidFile) -> Notice:
    message = f"{subject} {error}. The browser starts once that is corrected."
    return Notice(reason=reason, message=message)
