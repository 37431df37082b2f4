"""The mounted files that the browser starts with: a proxy's Secret and a bundle of certificates.

kubelet updates them within about a minute of a change. A running browser is not affected; the next
one starts with the new content.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wasession_api.session_pod.report import Notice
from wasession_api.v1alpha1 import Reason

from wasession_pod.browser.errors import NotStartable
from wasession_pod.browser.proxy import KEYS, InvalidKey, Proxy, parse_proxy
from wasession_pod.settings import Settings

# Why a browser cannot start with them.
REASONS = (Reason.PROXY_INVALID, Reason.CA_BUNDLE_INVALID)


class LaunchFiles(NamedTuple):
    """The content of the files; None where none are configured, a ``Notice`` where it is invalid.

    Not for logs: the proxy's Secret is part of it.
    """

    proxy: Proxy | Notice | None = None
    ca_bundle: bytes | Notice | None = None


def read(settings: Settings) -> LaunchFiles:
    """Return the files' present content."""
    return LaunchFiles(
        None if settings.proxy_directory is None else _read_proxy(settings.proxy_directory),
        None if settings.ca_bundle is None else _read_ca_bundle(settings.ca_bundle),
    )


def require(files: LaunchFiles) -> tuple[Proxy | None, bytes | None]:
    """Return the proxy and the CA bundle to start with; raise ``NotStartable``."""
    proxy, ca_bundle = files
    if isinstance(proxy, Notice):
        raise NotStartable(Reason.PROXY_INVALID, proxy.message)
    if isinstance(ca_bundle, Notice):
        raise NotStartable(Reason.CA_BUNDLE_INVALID, ca_bundle.message)
    return proxy, ca_bundle


def changes(started: LaunchFiles, current: LaunchFiles) -> tuple[Notice, ...]:
    """Return what has changed since a browser was started that still runs."""
    notices = []
    names = (
        (Reason.PROXY_CHANGED, "proxy's Secret"),
        (Reason.CA_BUNDLE_CHANGED, "CA bundle"),
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
