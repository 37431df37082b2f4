"""How Chromium is launched: flags, environment, user agent and the script in WhatsApp's page."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from wasession_api.v1alpha1 import Presence

from wasession_pod.browser.errors import BrowserError, first_line
from wasession_pod.browser.proxy import Proxy
from wasession_pod.settings import Settings

BRIDGE = Path(__file__).with_name("bridge.js")
# What Playwright sets for browsers that programs control (chromiumSwitches.ts) and a session needs;
# a test compares them.
PLAYWRIGHT_FLAGS = (
    "--disable-back-forward-cache",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-breakpad",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-field-trial-config",
    "--disable-hang-monitor",
    "--disable-popup-blocking",  # the pod closes popups, and counts them
    "--disable-prompt-on-repost",
    "--disable-renderer-backgrounding",
    "--disable-search-engine-choice-screen",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--password-store=basic",  # cookies are encrypted with its key
)
PLAYWRIGHT_ENABLED_FEATURES = ("CDPScreenshotNewSurface", "SkipListAccountsWithoutGaiaCookies")
PLAYWRIGHT_DISABLED_FEATURES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding",
    "ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints",
    "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch",
)  # fmt: skip
HEADLESS_FLAGS = (
    "--headless=new",
    "--hide-scrollbars",
    "--mute-audio",
    "--window-size=800,600",
    # A mouse, as on a desktop: a headless browser has no pointer.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)
# Measured: 164 MB of anonymous memory with these, 105 MB without. Chromium ignores unknown names.
HEAVY_FEATURES = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess", "Translate",
    "GlobalMediaControls",
)  # fmt: skip
# The login stays in LevelDB, which volume/ reads; Chromium 156 can migrate it to SQLite.
STORAGE_FEATURES = (
    "DomStorageSqlite", "DomStorageSqliteMigration", "DomStorageSqliteNewDatabases",
    "IdbSqliteBackingStore", "IdbSqliteOnDiskRollout",
)  # fmt: skip
# The network service runs in the browser process, as on Android: 16 MB less. It stores no part of
# a login.
ENABLED_FEATURES = ("NetworkServiceInProcess2",)
FLAGS = (
    *PLAYWRIGHT_FLAGS,
    *HEADLESS_FLAGS,
    "--disable-gpu",
    "--disable-quic",
    "--disable-software-rasterizer",
    # Chromium honors only the last flag of a kind.
    "--enable-features=" + ",".join((*PLAYWRIGHT_ENABLED_FEATURES, *ENABLED_FEATURES)),
    "--disable-features="
    + ",".join((*PLAYWRIGHT_DISABLED_FEATURES, *HEAVY_FEATURES, *STORAGE_FEATURES)),
    # Without it Chromium deletes the page's IndexedDB, and with it the login, on a volume with less
    # than a tenth of its space free.
    "--unlimited-storage",
    # Chromium's own limit grows with the free space on the volume.
    "--disk-cache-size=67108864",
)
NO_BYPASS = "--proxy-bypass-list=<-loopback>"  # Chromium itself exempts the own host from a proxy
# For Playwright's driver, which inherits this process's environment. Measured: 73 MB of anonymous
# memory without these, 54 MB with them.
DRIVER_ENVIRONMENT = {
    "NODE_OPTIONS": "--max-semi-space-size=1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
COMPILE_CACHE = "NODE_COMPILE_CACHE"
VERSION_TIMEOUT = 30.0  # seconds for ``chromium --version``, which takes some hundredths
UNSHARE_TIMEOUT = 10.0  # seconds


@functools.cache
def user_agent(chromium: Path) -> str:
    """Return the installed Chromium's user agent; raise ``BrowserError``.

    It lacks the word Headless, because WhatsApp Web refuses headless browsers.
    """
    try:
        result = subprocess.run(
            [str(chromium), "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BrowserError(
            f"could not read the version of {chromium}: {first_line(str(error))}"
        ) from None
    match = re.search(r"(\d+)\.\d+\.\d+", result.stdout)
    if match is None:
        raise BrowserError(f"{chromium} printed no version")
    return (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{match[1]}.0.0.0 Safari/537.36"
    )


def identity_flags(user_agent: str, locale: str | None) -> list[str]:
    """Return the flags for what the browser says of itself.

    Flags reach every context alike: documents, workers, the service worker and WebSockets. What
    DevTools overrides for a page does not reach shared and service workers, whose requests would
    still say Headless, and WhatsApp Web sessions then hang or are not restored
    (whatsapp-web.js #1518).
    """
    flags = [f"--user-agent={user_agent}", "--disable-blink-features=AutomationControlled"]
    if locale is not None:
        languages = dict.fromkeys((locale, locale.partition("-")[0]))
        flags += [f"--lang={locale}", f"--accept-lang={','.join(languages)}"]
    return flags


def arguments(
    settings: Settings, profile: Path, user_agent: str, proxy: Proxy | None, *, sandboxed: bool
) -> list[str]:
    """Return Chromium's arguments. Its first page is opened over the pipe."""
    return [
        *FLAGS,
        *identity_flags(user_agent, settings.locale),
        *([] if sandboxed else ["--no-sandbox"]),
        # ``confinement`` supplies the credentials.
        *([] if proxy is None else [f"--proxy-server={proxy.address}", NO_BYPASS]),
        *settings.extra_args,
        f"--user-data-dir={profile}",
        "--remote-debugging-pipe",
        "--no-startup-window",
    ]


def browser_environment(timezone: str | None, home: Path | None = None) -> dict[str, str]:
    """Return Chromium's environment, with the time zone of all its processes and its home."""
    own = {"TZ": timezone, "HOME": None if home is None else str(home)}
    return {**os.environ, **{name: value for name, value in own.items() if value is not None}}


def driver_environment() -> dict[str, str]:
    """Return the variables that Playwright's driver is to have besides this process's own."""
    own = {name: os.environ.get(name, value) for name, value in DRIVER_ENVIRONMENT.items()}
    if image_cache := os.environ.get(COMPILE_CACHE):
        own[COMPILE_CACHE] = str(compile_cache(Path(image_cache)))
    return own


def compile_cache(image_cache: Path) -> Path:
    """Return a directory in which Node finds the image's compile cache, whatever its user ID.

    Node uses the directory whose name ends with its own user ID, which thus becomes a link.
    """
    own = f"-{os.getuid()}"
    caches = [path for path in image_cache.glob("*-*") if path.is_dir()]
    if not caches or any(path.name.endswith(own) for path in caches):
        return image_cache
    links = empty_directory("driver")
    for path in caches:
        (links / (path.name.rpartition("-")[0] + own)).symlink_to(path)
    return links


def empty_directory(purpose: str) -> Path:
    """Return a new directory for temporary files of this process; raise ``OSError``.

    A container's processes have the same ID after each restart, so no directories accumulate.
    """
    directory = Path(tempfile.gettempdir()) / f"wasession-{purpose}-{os.getpid()}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


@functools.cache
def sandbox_available() -> bool:
    """Whether Chromium's sandbox works here: it needs namespaces and a user other than root."""
    if os.geteuid() == 0:
        return False
    command = ["unshare", "--user", "--pid", "--net", "--fork", "true"]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=UNSHARE_TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        return False
    return result.returncode == 0


def init_script(settings: Settings, wa_js: bytes | None = None) -> str:
    """Return one script, so that its parts run in order: guard, wa-js with its settings, bridge.

    ``wa_js`` replaces that of the image. The bridge runs even if wa-js throws, and reports that.
    """
    config = {
        "disableGoogleAnalytics": True,  # wa-js reports to it by default
        "linkPreviewApiServers": [],
        "deviceName": settings.device_name or False,
        "poweredBy": "-",
    }
    available = json.dumps(settings.presence is Presence.AVAILABLE)
    script = settings.wa_js.read_text() if wa_js is None else wa_js.decode()
    guard = f"window.top === window && location.origin === {json.dumps(settings.whatsapp_url)}"
    return (
        f"if ({guard}) {{\n"
        f"window.WPPConfig = {json.dumps(config)};\nwindow.__wasessionAvailable = {available};\n"
        f"try {{\n{script}\n}} catch (error) {{\n"
        "window.__wasessionWaJsError = `fails: ${error}`.slice(0, 256);\n}\n"
        f"{BRIDGE.read_text()}\n}}"
    )
