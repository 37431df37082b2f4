"""What can be said of the browser without one."""

from __future__ import annotations

import re
from pathlib import Path

import playwright
from wasession_pod.browser import FLAGS, PLAYWRIGHT_DISABLED_FEATURES, first_line, init_script
from wasession_pod.settings import Settings


def test_playwrights_own_disabled_features_are_repeated() -> None:
    """A second --disable-features replaces Playwright's, so none of its features may be missing from ours."""
    driver = Path(playwright.__file__).parent / "driver" / "package" / "lib" / "coreBundle.js"
    listed = re.search(r"^ *disabledFeatures = \[(.*?)\n *\]", driver.read_text(), re.DOTALL | re.MULTILINE)
    assert listed is not None
    theirs = set(re.findall(r'^ *"(\w+)"', listed.group(1), re.MULTILINE))
    assert theirs
    assert theirs <= set(PLAYWRIGHT_DISABLED_FEATURES)
    assert sum(flag.startswith("--disable-features=") for flag in FLAGS) == 1


def test_the_script_runs_in_one_place_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "wa.js").write_text("/* wa-js */")
    script = init_script(Settings(client_id="sales", token="t", wa_js=tmp_path / "wa.js", whatsapp_url="https://x.test"))
    assert script.startswith('if (window.top === window && location.origin === "https://x.test")')
    assert script.index("disableGoogleAnalytics") < script.index("/* wa-js */") < script.index("__wasession")


def test_errors_are_cut_to_their_own_words() -> None:
    message = "Page.goto: net::ERR_NAME_NOT_RESOLVED at http://x.test/\nCall log:\n  - secrets of the page"
    assert first_line(message) == "net::ERR_NAME_NOT_RESOLVED at http://x.test/"
