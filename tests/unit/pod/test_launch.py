"""How Chromium is launched, without launching it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import playwright
import pytest
from wasession_api.v1alpha1 import Reason
from wasession_pod.browser.errors import (
    BrowserError,
    Unreachable,
    describe_certificate_error,
    first_line,
)
from wasession_pod.browser.launch import (
    FLAGS,
    HEADLESS_FLAGS,
    PLAYWRIGHT_DISABLED_FEATURES,
    PLAYWRIGHT_ENABLED_FEATURES,
    PLAYWRIGHT_FLAGS,
    arguments,
    browser_environment,
    compile_cache,
    identity_flags,
    init_script,
    user_agent,
)
from wasession_pod.browser.proxy import Credentials, Proxy
from wasession_pod.settings import Settings

DRIVER = Path(playwright.__file__).parent / "driver" / "package" / "lib" / "coreBundle.js"
# What Playwright sets and a session does not need: for other programs and systems, for tests that
# compare pictures, or for tests that flood a page with events.
NOT_NEEDED = {
    "--allow-pre-commit-input", "--disable-edgeupdater", "--disable-infobars",
    "--disable-ipc-flooding-protection", "--disable-stack-profiler", "--disable-updater-scheduler",
    "--do-not-de-elevate", "--edge-skip-compat-layer-relaunch", "--enable-unsafe-swiftshader",
    "--force-color-profile=srgb", "--no-service-autorun",
    "--unsafely-disable-devtools-self-xss-warnings", "--use-mock-keychain",
    "TcpPortRandomizationWin", "msForceBrowserSignIn", "msEdgeUpdateLaunchServicesPreferredVersion",
}  # fmt: skip


@pytest.mark.parametrize(
    ("start", "pattern", "ours"),
    [
        (r"disabledFeatures = ", r'^[^/\n]*"(\w+)"', PLAYWRIGHT_DISABLED_FEATURES),
        (r"enabledFeatures = \(\) => ", r'^[^/\n]*"(\w+)"', PLAYWRIGHT_ENABLED_FEATURES),
        (r"chromiumSwitches = \(options\) => ", r'^[^/\n]*"(--[^"]+[^="])"', PLAYWRIGHT_FLAGS),
    ],
)
def test_what_playwright_sets_is_set_or_known_not_to_be_needed(
    start: str, pattern: str, ours: tuple[str, ...]
) -> None:
    """Another version of Playwright may have found another flag that a background page needs."""
    listed = re.search(rf"^ *{start}\[(.*?)\n *\]", DRIVER.read_text(), re.DOTALL | re.MULTILINE)
    assert listed is not None
    theirs = set(re.findall(pattern, listed.group(1), re.MULTILINE))
    assert theirs - NOT_NEEDED == set(ours)


def test_a_headless_browser_is_as_playwrights() -> None:
    text = DRIVER.read_text()
    for flag in HEADLESS_FLAGS[1:3] + HEADLESS_FLAGS[-1:]:
        assert f'"{flag}"' in text


@pytest.mark.parametrize("kind", ["enable", "disable"])
def test_features_are_in_one_flag(kind: str) -> None:
    """Chromium honors only the last flag of a kind."""
    assert len([flag for flag in FLAGS if flag.startswith(f"--{kind}-features=")]) == 1


def test_arguments_of_a_session_come_after_the_pods_own(tmp_path: Path) -> None:
    settings = Settings(client_id="sales", token="t", extra_args=["--one", "--two"])
    proxy = Proxy("socks5://proxy:1080", Credentials("someone", "swordfish"))
    given = arguments(settings, tmp_path, "Agent/1", proxy, sandboxed=True)
    assert given[: len(FLAGS)] == list(FLAGS)
    assert given.index("--proxy-server=socks5://proxy:1080") < given.index("--one")
    assert "--no-sandbox" not in given
    assert not any("swordfish" in argument for argument in given)
    assert "--no-sandbox" in arguments(settings, tmp_path, "Agent/1", None, sandboxed=False)


def test_the_script_runs_in_one_place_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "wa.js").write_text("/* wa-js */")
    script = init_script(
        Settings(
            client_id="sales", token="t", wa_js=tmp_path / "wa.js", whatsapp_url="https://x.test"
        )
    )
    assert script.startswith('if (window.top === window && location.origin === "https://x.test")')
    assert (
        script.index("disableGoogleAnalytics")
        < script.index("/* wa-js */")
        < script.index("window.__wasession = {")
    )
    assert "window.__wasessionAvailable = false;" in script


def test_another_wa_js_takes_the_place_of_the_images() -> None:
    script = init_script(Settings(client_id="sales", token="t"), b"throw new Error('of mine');")
    assert "wppconnect-team" not in script
    assert (
        script.index("try {")
        < script.index("of mine")
        < script.index("} catch (error)")
        < script.index("window.__wasession = {")
    ), "the bridge runs even if it throws"


def test_only_the_first_line_of_an_error_is_passed_on() -> None:
    error = "net::ERR_NAME_NOT_RESOLVED at http://x.test/"
    assert first_line(f"{error}\n  at secrets of the page") == error


def test_the_user_agent_is_the_installed_chromiums(tmp_path: Path) -> None:
    (chromium := tmp_path / "chromium").write_text(
        "#!/bin/sh\necho Chromium 156.0.8078.79 built on Debian\n"
    )
    chromium.chmod(0o755)
    assert " Chrome/156.0.0.0 " in user_agent(chromium)


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 1\n", None])
def test_a_chromium_without_a_version_is_no_version_0(program: str | None, tmp_path: Path) -> None:
    chromium = tmp_path / "chromium"
    if program is not None:
        chromium.write_text(program)
        chromium.chmod(0o755)
    with pytest.raises(BrowserError, match="version"):
        user_agent(chromium)


@pytest.mark.parametrize(
    ("locale", "languages"),
    [
        (None, []),
        ("de-DE", ["--lang=de-DE", "--accept-lang=de-DE,de"]),
        ("de", ["--lang=de", "--accept-lang=de"]),
    ],
)
def test_flags_tell_every_process_what_to_say(locale: str | None, languages: list[str]) -> None:
    agent, webdriver, *rest = identity_flags("Agent/1", locale)
    assert agent == "--user-agent=Agent/1"
    assert webdriver == "--disable-blink-features=AutomationControlled"
    assert rest == languages


def test_the_time_zone_is_in_the_environment() -> None:
    assert browser_environment("Europe/Berlin")["TZ"] == "Europe/Berlin"
    assert "PATH" in browser_environment(None)


def test_a_browser_has_its_own_home_only_for_certificates(tmp_path: Path) -> None:
    assert browser_environment(None, tmp_path)["HOME"] == str(tmp_path)
    assert browser_environment(None).get("HOME") == os.environ.get("HOME")


@pytest.mark.parametrize("user", [10001, 1000660000])
def test_every_user_gets_the_images_compile_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image_cache = tmp_path / "image"
    (image_cache / "v24.1.0-x64-0123abcd-10001").mkdir(parents=True)
    (image_cache / "v24.1.0-x64-0123abcd-10001" / "entry").write_text("compiled")
    cache = compile_cache(image_cache)
    assert (cache / f"v24.1.0-x64-0123abcd-{user}" / "entry").read_text() == "compiled"
    assert compile_cache(cache) == cache
    assert compile_cache(tmp_path / "nowhere") == tmp_path / "nowhere"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("net::ERR_CERT_AUTHORITY_INVALID at https://x.test/", "session's CA bundle"),
        ("net::ERR_CERT_DATE_INVALID at https://x.test/", "expired"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_explained(error: str, advice: str) -> None:
    message = describe_certificate_error(error)
    assert "certificate" in message
    assert advice in message
    assert error in message
    assert Unreachable(message).reason is Reason.CERTIFICATE_UNTRUSTED
    assert describe_certificate_error("Timeout 3000ms exceeded.") == "Timeout 3000ms exceeded."
