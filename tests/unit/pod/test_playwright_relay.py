"""What the relay lets Playwright call, and when Playwright is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from wasession_pod.browser.playwright_relay import ANSWERED, FORWARDED, Call, permitted

PAGE = "page"
ATTACH = Call(
    "Target.setAutoAttach", {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
)


def test_of_all_targets_it_gets_one_page() -> None:
    assert permitted(ATTACH, PAGE, of_browser=True) == Call(
        "Target.attachToTarget", {"targetId": PAGE, "flatten": True}
    )


def test_in_the_page_it_gets_frames_that_do_not_wait_for_it() -> None:
    call = permitted(ATTACH, PAGE, of_browser=False)
    assert call is not None
    assert call.method == ATTACH.method
    assert call.params["waitForDebuggerOnStart"] is False
    assert call.params["filter"] == [{"type": "iframe"}]


def test_it_may_read_the_page() -> None:
    call = Call("Runtime.evaluate", {"expression": "document.title"})
    assert permitted(call, PAGE, of_browser=False) == call


@pytest.mark.parametrize(
    "method",
    [
        "Browser.close",
        "Browser.crash",
        "Browser.grantPermissions",
        "Browser.setDownloadBehavior",
        "Debugger.enable",
        "Emulation.setDeviceMetricsOverride",
        "Emulation.setFocusEmulationEnabled",
        "Fetch.enable",
        "Network.setCacheDisabled",
        "Page.handleJavaScriptDialog",
        "Page.navigate",
        "Runtime.addBinding",
        "Security.setIgnoreCertificateErrors",
        "ServiceWorker.stopAllWorkers",
        "Storage.getCookies",
        "Target.attachToTarget",
        "Target.closeTarget",
        "Target.createTarget",
        "Target.detachFromTarget",
        "Target.setDiscoverTargets",
        "nonsense",
    ],
)
@pytest.mark.parametrize("of_browser", [True, False])
def test_it_may_change_nothing(method: str, of_browser: bool) -> None:
    assert method not in ANSWERED
    assert permitted(Call(method, {}), PAGE, of_browser=of_browser) is None


def test_what_is_answered_is_not_passed_on() -> None:
    assert not ANSWERED & FORWARDED


def test_playwright_is_not_imported_before_it_is_used() -> None:
    program = (
        "import sys, wasession_pod.run as run; run.import_api();"
        "sys.exit(any(name.startswith('playwright') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
