"""What the page shows, as text: for people who look for why a session does not become Ready.

It is what Playwright calls an accessibility snapshot: YAML with the role, name and text of each
element. It has no chats and no link codes, so that it can be shown to others.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Page

MAXIMUM_SIZE = 64 * 2**10  # bytes
MAXIMUM_DIALOGS = 8
DIALOG_TIMEOUT = 5000.0  # milliseconds, for a dialog that closes meanwhile
CHATS = "#pane-side, #main"  # the list of chats and the open one, as WPPConnect finds them
DIALOGS = "dialog, [role=dialog], [role=alertdialog]"
DIALOGS_ALONE = "# There is a login: of the page, dialogs alone are shown.\n"
NO_DIALOG = "# There is none.\n"
NO_TEXT = "# The page shows no text.\n"
SHORTENED = "\n# The page shows more than this.\n"
# A QR's content consists of such parts, none of which is shorter. No text for people has them.
OPAQUE = re.compile(r"[A-Za-z0-9+/=_-]{32,}")


async def outline(page: Page, has_login: Callable[[], Awaitable[bool]]) -> str:
    """Return what a page shows; with a login its dialogs alone. Raises Playwright's errors."""

    async def may_show_chats() -> bool:
        return await has_login() or await page.locator(CHATS).count() > 0

    if not await may_show_chats():
        text = await page.locator("body").aria_snapshot()
        if not await may_show_chats():  # not yet, when that was read
            return presentable(text) or NO_TEXT
    return DIALOGS_ALONE + (presentable(await _dialogs(page)) or NO_DIALOG)


async def _dialogs(page: Page) -> str:
    dialogs = page.locator(DIALOGS).filter(has_not=page.locator(CHATS), visible=True)
    return "\n".join(
        [
            await dialog.aria_snapshot(timeout=DIALOG_TIMEOUT)
            for dialog in (await dialogs.all())[:MAXIMUM_DIALOGS]
        ]
    )


def presentable(text: str) -> str:
    """Return a text without what may be a QR's content, cut to size."""
    encoded = OPAQUE.sub("…", text).encode(errors="replace")
    if len(encoded) <= MAXIMUM_SIZE:
        return encoded.decode()
    return encoded[: MAXIMUM_SIZE - len(SHORTENED)].decode(errors="ignore") + SHORTENED
