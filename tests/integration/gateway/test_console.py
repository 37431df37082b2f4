"""The console in a real Chromium, in front of a fake API server and fake session pods."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from integration.gateway.console import (
    OTHERS,
    READY,
    PairingPod,
    Tab,
    account,
    past,
    put,
    status,
    waiting,
)
from integration.gateway.fakes import ApiServer, serving
from integration.gateway.replica import Replica, token, until
from playwright.async_api import Browser, Page, async_playwright, expect
from support.loopback import pod_address

AXE = Path(__file__).parents[3] / "gateway" / "client" / "node_modules" / "axe-core" / "axe.min.js"
FIRST = "2@" + ",".join(["Rm9yIHRlc3RzIG9ubHk" * 3, "a" * 44, "b" * 44, "c" * 44])
SECOND = FIRST.replace("a", "z")
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
NARROW = {"width": 320, "height": 640}
PATIENCE = 20_000  # milliseconds
Open = Callable[..., Awaitable[Tab]]
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def open_tab(browser: Browser, gateway: Replica) -> AsyncIterator[Open]:
    """Open tabs; none of them may have had a problem at the end."""
    tabs: list[Tab] = []

    async def begin(replica: Replica = gateway, **options: Any) -> Tab:
        context = await browser.new_context(**{"viewport": DESKTOP, **options})
        context.set_default_timeout(PATIENCE)
        tabs.append(Tab(await context.new_page(), replica))
        return tabs[-1]

    yield begin
    for tab in tabs:
        await tab.page.context.close()
        assert tab.problems == []


@pytest.fixture
async def tab(open_tab: Open) -> Tab:
    return await open_tab()


@pytest.fixture
async def sales(api: ApiServer) -> AsyncIterator[PairingPod]:
    """The pod of maria's session ``sales``."""
    pod = PairingPod(await put(api, "sales", READY))
    api.add_pod("sales", pod_address(1))
    async with serving(pod.app, pod_address(1), 8080):
        yield pod


def pill(page: Page) -> Any:
    return page.locator(".heading .pill")


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


# --- signing in -----------------------------------------------------------------------------------


async def test_a_token_that_is_refused_says_why(tab: Tab) -> None:
    await tab.page.goto(tab.replica.url)
    field = tab.page.get_by_label("Token")
    await expect(field).to_be_focused()
    for typed, text in (
        ("", "Paste your token here."),
        ("a b", "This is not a token"),
        ("a.b.c", "rejected this token"),
    ):
        await field.fill(typed)
        await button(tab.page, "Sign in").click()
        await expect(tab.page.get_by_text(text)).to_be_visible()
        await expect(field).to_have_attribute("aria-invalid", "true")


async def test_a_token_is_stored_for_the_tab_only(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    assert await tab.page.evaluate("[Object.keys(localStorage), document.cookie]") == [[], ""]
    await tab.page.reload()
    await expect(tab.page.get_by_role("link", name="sales")).to_be_visible()
    await expect(tab.page.get_by_text("maria", exact=True)).to_be_visible()
    await button(tab.page, "Sign out").click()
    await expect(tab.page.get_by_label("Token")).to_be_focused()
    assert await tab.page.evaluate("Object.keys(sessionStorage)") == []
    await tab.page.reload()
    await expect(tab.page.get_by_label("Token")).to_be_visible()


async def test_an_expired_token_signs_out_and_says_why(tab: Tab) -> None:
    await tab.sign_in()
    await expect(tab.page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    tab.replica.expire_tokens(until=time.time() + 5000)
    await expect(
        tab.page.get_by_role("alert").filter(
            has_text=re.compile(
                "^You were signed out: the token has expired. Sign in with a new token.$"
            )
        )
    ).to_be_visible()
    await expect(tab.page.get_by_label("Token")).to_be_visible()


async def test_the_page_may_load_and_run_its_own_parts_only(gateway: Replica) -> None:
    async with gateway.http.get("/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "<style" not in page
    assert page.count("<script") == page.count('<script type="module" src="/')
    for part in ("/main.js", "/console.css", "/icon.svg", "/socket.io-client.js"):
        async with gateway.http.get(part) as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache"), part


# --- the list -------------------------------------------------------------------------------------


async def test_the_list_is_live(tab: Tab, api: ApiServer) -> None:
    await put(api, "theirs", READY, owner="otto")
    async with tab.page.expect_websocket():
        await tab.sign_in()
    await expect(tab.page.get_by_role("heading", name="No sessions yet")).to_be_visible()
    await put(api, "sales", status("Starting", "PageLoading"))
    row = tab.page.get_by_role("link", name="sales")
    await expect(row).to_contain_text("Starting")
    await put(api, "sales", READY)
    await expect(row).to_contain_text("Ready")
    await expect(row).to_contain_text("Sales Europe")
    await expect(row).to_contain_text("+15551234567")
    await expect(row).to_contain_text("Connected 5 hours ago")
    await expect(tab.page.get_by_role("status").filter(has_text="1 of 1 ready")).to_be_visible()
    await api.remove("sales")
    await expect(row).to_have_count(0)
    await expect(tab.page.get_by_text("theirs")).to_have_count(0)


async def test_many_sessions_can_be_searched(tab: Tab, api: ApiServer) -> None:
    for name, state in {"sales": READY, "warehouse": waiting(), "tests": READY, **OTHERS}.items():
        await put(api, name, state)
    await tab.sign_in()
    await expect(tab.page.locator(".row")).to_have_count(8)
    assert [await row.inner_text() for row in await tab.page.locator(".row .name").all()] == sorted(
        ["sales", "warehouse", "tests", *OTHERS]
    )
    await tab.page.get_by_label("Find a session").fill("0003333")
    await expect(tab.page.locator(".row")).to_have_count(1)
    await tab.page.get_by_label("Find a session").fill("nothing like it")
    await expect(tab.page.get_by_text("No session matches")).to_be_visible()


async def test_sessions_that_need_attention_are_a_click_away(tab: Tab, api: ApiServer) -> None:
    for name, state in {"sales": READY, "warehouse": waiting(), "tests": READY, **OTHERS}.items():
        await put(api, name, state)
    await tab.sign_in()
    names = tab.page.locator(".row .name")
    await expect(names).to_have_count(8)
    await tab.page.get_by_role("link", name="4 need attention").click()
    await expect(names).to_have_text(["bank", "legacy", "press", "warehouse"])
    await expect(tab.page.get_by_label("State")).to_have_value("attention")
    await tab.page.get_by_label("Order").select_option("By state")
    await expect(names).to_have_text(["bank", "legacy", "press", "warehouse"])
    await tab.page.get_by_label("State").select_option("Stopped")
    await expect(names).to_have_text(["newsletter"])
    await tab.page.reload()
    await expect(names).to_have_text(["newsletter"])  # as the address says
    await tab.page.get_by_label("State").select_option("All states")
    await expect(names).to_have_text(
        ["bank", "legacy", "press", "warehouse", "support", "sales", "tests", "newsletter"]
    )
    await tab.page.get_by_label("Order").select_option("By last connection")
    await expect(names.first).to_have_text("support")
    await tab.page.get_by_label("Find a session").fill("nothing like it")
    await tab.page.get_by_role("link", name="Show all sessions").click()
    await expect(names).to_have_count(8)
    assert urlsplit(tab.page.url).fragment == "/"


async def test_an_admin_reads_phone_numbers_whole(open_tab: Open, api: ApiServer) -> None:
    long = account("15551234567", "A company with quite a long name, and a department")
    await put(api, "sales", READY | {"account": long}, owner="somebody.with.a.long@name.example")
    for viewport in (DESKTOP, {"width": 900, "height": 800}, PHONE, NARROW):
        tab = await open_tab(viewport=viewport)
        await tab.sign_in("root", role="admin")
        number = tab.page.locator(".row .number")
        await expect(number).to_have_text("+15551234567")
        assert await number.evaluate("element => element.scrollWidth <= element.clientWidth + 1")
        inside = """(element) => {
            const [own, row] = [element.getBoundingClientRect(),
                                element.closest(".row").getBoundingClientRect()];
            return own.right <= row.right && own.left >= row.left;
        }"""
        assert await number.evaluate(inside)


async def test_long_names_on_a_narrow_screen(open_tab: Open, api: ApiServer) -> None:
    name = "the-sessions-of-the-warehouse-of-the-company-in-the-north-west-1"
    await put(api, name, READY)
    tab = await open_tab(viewport=NARROW)
    await tab.sign_in()
    lines = """(element) => element.getBoundingClientRect().height
                    / parseFloat(getComputedStyle(element).lineHeight)"""
    in_list = tab.page.locator(".row .name")
    await expect(in_list).to_be_visible()
    assert await in_list.evaluate(lines) <= 2.1
    await expect(in_list).to_have_attribute("title", name)
    await tab.go(name)
    heading = tab.page.get_by_role("heading", level=1)
    assert await heading.evaluate(lines) <= 3.1
    assert await tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


# --- linking a phone ------------------------------------------------------------------------------


async def test_a_qr_renews_itself_until_a_phone_is_linked(
    tab: Tab, api: ApiServer, sales: PairingPod
) -> None:
    await sales.offers(FIRST, 1)
    await api.put("sales", api.session("sales")["spec"], waiting())
    await tab.sign_in()
    await tab.go("sales")
    await expect(pill(tab.page)).to_have_text("Link a phone")
    await expect(tab.page.get_by_text("Round 1.")).to_be_visible()
    assert await tab.qr() == FIRST
    await sales.offers(SECOND, 2)
    await expect(tab.page.get_by_text("Round 2.")).to_be_visible()
    assert await tab.qr() == SECOND
    await put(api, "sales", READY)
    await expect(pill(tab.page)).to_have_text("Ready")
    await expect(tab.page.get_by_role("heading", name="Link a phone")).to_be_hidden()
    await expect(tab.page.get_by_role("heading", name="Send a test message")).to_be_visible()
    assert "data:image" not in await tab.page.content()


async def test_an_expired_qr_is_taken_away(tab: Tab, api: ApiServer, sales: PairingPod) -> None:
    await sales.offers(FIRST, 1)
    await sales.says(
        pairing={"available": True, "method": "QRCode", "attempt": 1, "expiresAt": past(seconds=-3)}
    )
    await api.put("sales", api.session("sales")["spec"], waiting(seconds=3))
    await tab.sign_in()
    await tab.go("sales")
    await expect(tab.page.get_by_text("New code in")).to_be_visible()
    await expect(tab.page.get_by_text("Waiting for a code…")).to_be_visible()
    await expect(tab.page.get_by_role("img", name="QR to scan")).to_be_hidden()


async def test_a_pairing_code_is_spelled(tab: Tab, api: ApiServer, sales: PairingPod) -> None:
    await sales.offers("ABCD1234", 1, method="PairingCode")
    await api.put("sales", api.session("sales")["spec"], waiting("PairingCode"))
    await tab.sign_in()
    await tab.go("sales")
    code = tab.page.get_by_text("ABCD-1234")
    await expect(code).to_be_visible()
    await expect(code).to_have_attribute("aria-label", "A B C D 1 2 3 4")
    await expect(tab.page.get_by_text("Link with phone number instead")).to_be_visible()


async def test_after_the_last_round_a_new_code_can_be_asked_for(
    tab: Tab, api: ApiServer, sales: PairingPod
) -> None:
    await api.put("sales", api.session("sales")["spec"], OTHERS["press"])
    await tab.sign_in()
    await tab.go("sales")
    await expect(pill(tab.page)).to_have_text("Not linked")
    await button(tab.page, "New code").click()
    await until(lambda: sales.refreshed == 1)
    await sales.offers(SECOND, 1)
    await api.put("sales", api.session("sales")["spec"], waiting())
    await expect(tab.page.get_by_text("Round 1.")).to_be_visible()
    assert await tab.qr() == SECOND


# --- a session that is linked ---------------------------------------------------------------------


async def test_a_session_that_sleeps_can_be_woken(tab: Tab, api: ApiServer) -> None:
    sleep = {"since": past(hours=2), "wakeAt": past(hours=-70)}
    await put(api, "sales", status("Hibernated", "Hibernated", valid=True, hibernation=sleep))
    await tab.sign_in()
    await tab.go("sales")
    await expect(pill(tab.page)).to_have_text("Asleep")
    text = re.compile("Asleep since .*, as nobody uses it. .* it wakes by itself on ")
    await expect(tab.page.get_by_role("status").filter(has_text=text)).to_be_visible()
    await expect(button(tab.page, "Restart")).to_be_hidden()
    assert "annotations" not in api.session("sales")["metadata"], "looking at it wakes nothing"
    await button(tab.page, "Wake").click()
    await expect(tab.page.get_by_text("sales is waking up.")).to_be_visible()
    assert "wasession.dev/wake" in api.session("sales")["metadata"]["annotations"]
    await put(api, "sales", READY)
    await expect(pill(tab.page)).to_have_text("Ready")
    await expect(button(tab.page, "Wake")).to_be_hidden()


async def test_a_session_is_described(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    await tab.go("sales")
    for text in (
        "Connected. Messages can be sent and received.",
        "Sales Europe, +15551234567",
        "Valid, stored on the volume",
        "3 times",
        "Logged in to WhatsApp",
        "Restored from its stored login",
        "The connection to WhatsApp was lost",
    ):
        await expect(tab.page.get_by_text(text, exact=True)).to_be_visible()
    state = tab.page.get_by_role("status").filter(has_text="Connected. Messages")
    await api.status("sales", **OTHERS["support"])
    await expect(state).to_have_count(0)
    await expect(
        tab.page.get_by_role("status").filter(
            has_text="Opening WhatsApp Web with the stored login."
        )
    ).to_be_visible()


async def test_a_warning_is_seen_while_the_session_works(tab: Tab, api: ApiServer) -> None:
    text = "The phone was last seen ten days ago."
    warning = {
        "type": "Degraded",
        "status": "True",
        "reason": "PhoneOffline",
        "message": text,
        "lastTransitionTime": past(),
    }
    others = [condition for condition in READY["conditions"] if condition["type"] != "Degraded"]
    await put(api, "sales", {**READY, "conditions": [*others, warning]})
    await tab.sign_in()
    await expect(
        tab.page.get_by_role("status").filter(has_text="1 of 1 ready, 1 needs attention")
    ).to_be_visible()
    await tab.go("sales")
    await expect(tab.page.get_by_role("status").filter(has_text=text)).to_be_visible()
    await expect(tab.page.get_by_role("heading", name="Send a test message")).to_be_visible()


async def test_a_test_message_is_followed(tab: Tab, sales: PairingPod) -> None:
    await tab.sign_in()
    await tab.go("sales")
    page = tab.page
    await button(page, "Send").click()
    await expect(page.get_by_text("Country code and number, such as 15551234567.")).to_be_visible()
    await page.get_by_label("To", exact=True).fill("+1 (555) 000-1111")
    await button(page, "Send").click()
    await expect(
        page.get_by_role("status").filter(has_text="To +15550001111: sent.")
    ).to_be_visible()
    assert [(sent["to"], sent["text"]) for sent in sales.sent] == [
        ("+15550001111", "A test message from wasession.")
    ]
    ack = {"id": "true_15550001111@c.us_3EB0", "chatId": "15550001111@c.us", "ack": 3, "at": past()}
    await until(lambda: sales.followers > 0)
    await sales.tells("ack", ack)
    await expect(
        page.get_by_role("status").filter(has_text="To +15550001111: read.")
    ).to_be_visible()


async def test_what_failed_before_a_suspension_is_not_shown_after_it(
    tab: Tab, api: ApiServer, sales: PairingPod
) -> None:
    problem = {"title": "No", "status": 404, "detail": "19999999999 is not on WhatsApp"}
    sales.refusals = [
        web.json_response(problem, status=404, content_type="application/problem+json")
    ]
    await tab.sign_in()
    await tab.go("sales")
    await tab.page.get_by_label("To", exact=True).fill("19999999999")
    await button(tab.page, "Send").click()
    failure = tab.page.get_by_text("19999999999 is not on WhatsApp.")
    await expect(failure).to_be_visible()
    await api.status("sales", **OTHERS["newsletter"])
    await expect(pill(tab.page)).to_have_text("Suspended")
    await put(api, "sales", READY)
    await expect(button(tab.page, "Send")).to_be_visible()
    await expect(failure).to_be_hidden()


async def test_incoming_messages_are_shown(tab: Tab, sales: PairingPod) -> None:
    await tab.sign_in()
    await tab.go("sales")
    inbox = tab.page.get_by_role("log", name="Messages")
    await expect(
        tab.page.get_by_text("Messages that arrive while this page is open")
    ).to_be_visible()
    await until(lambda: sales.followers > 0)
    await sales.receives("Hello <b>there</b>", senderName="Maria")
    await expect(inbox).to_contain_text("Maria")
    await expect(inbox).to_contain_text("Hello <b>there</b>")
    await sales.receives("", type="image")
    await expect(inbox).to_contain_text("+15550001111")
    await expect(inbox).to_contain_text("[image]")
    await sales.receives("I agree", fromMe=True, chatId="120363000000000001@g.us")
    await expect(inbox.locator("li").first).to_contain_text("You, in a group")
    await tab.go("sales", "?")
    await expect(inbox.locator("li")).to_have_count(0)


def failing() -> dict[str, Any]:
    return {
        "name": "crm",
        "place": "https://crm.example.com",
        "state": "Failing",
        "since": past(minutes=9),
        "pending": 3,
        "oldest": past(minutes=9),
        "error": "HTTP 500",
        "deadLetters": 1,
        "lastDelivered": past(minutes=10),
    }


def delivering() -> dict[str, Any]:
    return {
        "name": "events",
        "place": "tls://nats.example.com WHATSAPP",
        "state": "Delivering",
        "since": past(days=1),
        "pending": 0,
        "deadLetters": 0,
    }


def delivery_states(*deliveries: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the operator writes of them to the status."""
    return [{field: one[field] for field in ("name", "state", "since")} for one in deliveries]


async def test_deliveries_are_shown_and_repeated(
    tab: Tab, api: ApiServer, sales: PairingPod
) -> None:
    sales.deliveries = [failing(), delivering()]
    sales.dead_letters = [
        {
            "eventId": "5c1f0e7a9b3d4c62-7",
            "kind": "message",
            "at": past(minutes=2),
            "attempts": 5,
            "error": "HTTP 422",
        }
    ]
    await api.status("sales", delivery=delivery_states(*sales.deliveries))
    await tab.sign_in()
    await tab.go("sales")
    page = tab.page
    rows = page.locator(".deliveries > li")
    await expect(rows).to_have_count(2)
    first, second = await rows.all_inner_texts()
    for words in (
        "crm", "Failing", "https://crm.example.com", "3 events wait, the first since 9 minutes",
        "Delivered last 10 minutes ago.", "Last attempt: HTTP 500", "1 event was given up",
    ):  # fmt: skip
        assert words in first
    for words in ("events", "Delivering", "tls://nats.example.com WHATSAPP", "Nothing waits."):
        assert words in second
    await page.get_by_text("1 event was given up").click()
    await expect(page.get_by_text("message 5c1f0e7a9b3d4c62-7")).to_be_visible()
    await expect(page.get_by_text("HTTP 422, after 5 attempts")).to_be_visible()
    await button(page, "Deliver again").click()
    await expect(page.get_by_text("1 event is delivered again.")).to_be_visible()
    await expect(page.get_by_text("1 event was given up")).to_be_hidden()
    await rows.first.get_by_role("button", name="Pause").click()
    await expect(rows.first.locator(".pill")).to_have_text("Paused")
    await rows.first.get_by_role("button", name="Resume").click()
    await expect(rows.first.locator(".pill")).to_have_text("Delivering")


async def test_who_may_only_read_sees_deliveries_and_changes_none(
    open_tab: Open, api: ApiServer, sales: PairingPod
) -> None:
    sales.deliveries = [failing()]
    await api.status("sales", delivery=delivery_states(failing()))
    tab = await open_tab()
    await tab.sign_in(scope="sessions:read")
    await tab.go("sales")
    await expect(tab.page.get_by_text("Last attempt: HTTP 500")).to_be_visible()
    for name in ("Pause", "Deliver again"):
        await expect(button(tab.page, name)).to_be_hidden()


async def test_a_session_without_deliveries_shows_none_and_asks_for_none(
    tab: Tab, sales: PairingPod
) -> None:
    await tab.sign_in()
    await tab.go("sales")
    await expect(tab.page.get_by_role("heading", name="Actions")).to_be_visible()
    await expect(tab.page.get_by_role("heading", name="Delivery")).to_be_hidden()
    assert sales.asked["GET /v1/deliveries"] == 0


async def test_a_toast_covers_nothing_and_ends_with_its_page(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    await tab.go("sales")
    await button(tab.page, "Restart").click()
    toast = tab.page.get_by_text("sales is being restarted.")
    await expect(toast).to_be_visible()
    box = await tab.page.locator(".toast").bounding_box()
    for part in await tab.page.locator("h1, .card:visible").all():
        other = await part.bounding_box()
        assert box is not None
        assert other is not None
        assert other["y"] >= box["y"] + box["height"], await part.inner_text()
    await tab.page.get_by_role("link", name="All sessions").click()
    await expect(toast).to_have_count(0)
    await tab.go("sales")
    await button(tab.page, "Restart").click()
    await button(tab.page, "Dismiss").click()
    await expect(toast).to_have_count(0)


async def test_a_waiting_session_leaves_no_column_empty(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", status("Pending", "StartQueued"))
    await tab.sign_in()
    await tab.go("sales")
    await expect(pill(tab.page)).to_have_text("Waiting")
    boxes = [
        await tab.page.get_by_role("heading", name=name).locator("..").bounding_box()
        for name in ("Actions", "Details", "History")
    ]
    actions, details, history = (box for box in boxes if box is not None)
    assert actions["width"] > details["width"] + history["width"]
    assert details["y"] == history["y"] > actions["y"]


async def test_a_message_that_is_tried_again_is_sent_once(tab: Tab, sales: PairingPod) -> None:
    problem = {
        "title": "Not ready",
        "status": 503,
        "detail": "the session is Reconnecting, not Ready",
    }
    sales.refusals = [
        web.json_response(problem, status=503, content_type="application/problem+json")
    ]
    await tab.sign_in()
    await tab.go("sales")
    await tab.page.get_by_label("To", exact=True).fill("15550001111")
    await button(tab.page, "Send").click()
    await expect(tab.page.get_by_text("The session is Reconnecting, not Ready.")).to_be_visible()
    await button(tab.page, "Send").click()
    await expect(tab.page.get_by_text("To +15550001111: sent.")).to_be_visible()
    await button(tab.page, "Send").click()
    await until(lambda: len(sales.sent) == 3)
    first, again, another = (sent["key"] for sent in sales.sent)
    assert first == again
    assert another != again


async def test_suspend_and_resume(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    await tab.go("sales")
    await button(tab.page, "Suspend…").click()
    await button(tab.page, "Suspend").click()
    await until(lambda: api.session("sales")["spec"]["suspend"] is True)
    await api.status("sales", **OTHERS["newsletter"])
    await button(tab.page, "Resume").click()
    await until(lambda: api.session("sales")["spec"]["suspend"] is False)


async def test_restart_and_restore(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    await tab.go("sales")
    await button(tab.page, "Restart").click()
    await until(
        lambda: "wasession.dev/restart" in api.session("sales")["metadata"].get("annotations", {})
    )
    await expect(button(tab.page, "Restore")).to_be_hidden()
    await api.status("sales", **OTHERS["bank"], podUID="1")
    before = api.session("sales")["metadata"]["annotations"]["wasession.dev/restart"]
    await button(tab.page, "Restore").click()
    await until(
        lambda: api.session("sales")["metadata"]["annotations"]["wasession.dev/restart"] != before
    )
    await api.status("sales", **OTHERS["bank"], podUID="2")
    await expect(
        tab.page.get_by_text("AccountBlocked: WhatsApp has blocked the account")
    ).to_be_visible()


async def test_a_logout_is_asked_first(tab: Tab, sales: PairingPod) -> None:
    await tab.sign_in()
    await tab.go("sales")
    await button(tab.page, "Log out…").click()
    dialog = tab.page.get_by_role("dialog", name="Log out of +15551234567?")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await button(tab.page, "Log out…").click()
    await dialog.get_by_role("button", name="Log out").click()
    await expect(tab.page.get_by_text("sales was logged out.")).to_be_visible()
    assert sales.logouts == 1


@pytest.mark.parametrize(
    ("volume", "logout", "text", "deleted"),
    [
        ("Keep it", False, "uses it with its login, without linking a phone", "Retain"),
        ("Keep it", True, "The volume stays in the cluster, without a login.", "Retain"),
        (
            "Delete it",
            False,
            "The volume is deleted with everything on it. This cannot be undone.",
            "Delete",
        ),
    ],
)
async def test_a_deletion_says_what_becomes_of_the_volume(
    tab: Tab, api: ApiServer, volume: str, logout: bool, text: str, deleted: str
) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    await tab.go("sales")
    await button(tab.page, "Delete…").click()
    dialog = tab.page.get_by_role("dialog", name="Delete sales?")
    await dialog.get_by_label(volume).check()
    if logout:
        await dialog.get_by_label("Log out of WhatsApp first").check()
    await expect(dialog.get_by_role("status").filter(has_text=text)).to_be_visible()
    await dialog.get_by_role("button", name="Delete").click()
    await expect(tab.page.get_by_role("heading", name="Sessions", exact=True)).to_be_visible()
    body = api.session("sales")
    assert "deletionTimestamp" in body["metadata"]
    assert (
        body["spec"].get("storage", {}).get("retention", {}).get("whenDeleted", "Retain") == deleted
    )
    assert ("wasession.dev/logout" in body["metadata"].get("annotations", {})) is logout


async def test_a_deletion_without_a_login_speaks_of_none(tab: Tab, api: ApiServer) -> None:
    await put(api, "legacy", OTHERS["legacy"])
    await tab.sign_in()
    await tab.go("legacy")
    await button(tab.page, "Delete…").click()
    dialog = tab.page.get_by_role("dialog", name="Delete legacy?")
    await expect(dialog.get_by_role("group", name="The volume", exact=True)).to_be_visible()
    await expect(dialog).not_to_contain_text("with the login")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(tab.page.get_by_text("legacy is being deleted.")).to_be_visible()


# --- making one -----------------------------------------------------------------------------------


async def test_a_session_is_made(tab: Tab, api: ApiServer) -> None:
    await tab.sign_in()
    await button(tab.page, "Create your first session").click()
    dialog = tab.page.get_by_role("dialog", name="New session")
    await dialog.get_by_label("Name").fill("sales eu")
    await button(tab.page, "Create").click()
    await expect(dialog.get_by_text("Use letters, digits, - and _ only")).to_be_visible()
    await dialog.get_by_label("Name").fill("sales-eu")
    await dialog.get_by_label("Type a code").check()
    await dialog.get_by_label("Phone number").fill("+1 555 123 4567")
    await button(tab.page, "Create").click()
    await expect(tab.page.get_by_role("heading", name="sales-eu", level=1)).to_be_focused()
    [name] = api.names
    assert api.session(name)["spec"]["pairing"] == {
        "method": "PairingCode",
        "phoneNumber": "15551234567",
    }
    assert api.session(name)["spec"]["owner"] == "maria"


async def test_a_refusal_is_shown_where_it_was_asked(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    await button(tab.page, "New session").click()
    dialog = tab.page.get_by_role("dialog", name="New session")
    await dialog.get_by_label("Name").fill("sales")
    await button(tab.page, "Create").click()
    await expect(dialog.get_by_role("alert")).to_have_text("A session of this name already exists.")


# --- admins, and sessions of others ---------------------------------------------------------------


async def test_an_admin_says_whose(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await put(
        api,
        "theirs",
        OTHERS["bank"] | {"account": account("15559998888", "Otto")},
        owner="otto",
        clientId="sales",
    )
    await tab.sign_in("root", role="admin")
    await tab.page.get_by_role("link", name="otto").click()
    await expect(tab.page.get_by_text("Otto, +15559998888")).to_be_visible()
    await button(tab.page, "Suspend…").click()
    await button(tab.page, "Suspend").click()
    await until(lambda: api.session("theirs")["spec"]["suspend"] is True)
    assert api.session("sales")["spec"]["suspend"] is False


async def test_a_session_of_somebody_else_is_not_there(tab: Tab, api: ApiServer) -> None:
    await put(api, "theirs", READY, owner="otto")
    await tab.sign_in()
    await tab.go("theirs")
    await expect(tab.page.get_by_text("No session has this name")).to_be_visible()


# --- tokens with scopes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "shown", "lacking"),
    [
        (
            {"scope": "sessions:read"},
            set(),
            "Your token does not permit you to change sessions, link phones, read messages, or "
            "send messages: it lacks sessions:write, pair, messages:read, and messages:send.",
        ),
        (
            {"scp": ["sessions:read", "sessions:write", "pair"]},
            {"Actions", "Link a phone"},
            "Your token does not permit you to read messages or send messages: it lacks "
            "messages:read and messages:send.",
        ),
        (
            {"scope": "sessions:read messages:send"},
            {"Send a test message"},
            "Your token does not permit you to change sessions, link phones, or read messages: it "
            "lacks sessions:write, pair, and messages:read.",
        ),
        ({}, {"Actions", "Link a phone", "Send a test message", "Messages"}, ""),
    ],
)
async def test_what_the_token_does_not_permit_is_not_shown(
    tab: Tab,
    api: ApiServer,
    sales: PairingPod,
    scopes: dict[str, Any],
    shown: set[str],
    lacking: str,
) -> None:
    await sales.offers(FIRST, 1)
    await tab.sign_in(**scopes)
    await expect(button(tab.page, "New session")).to_have_count(int("Actions" in shown))
    visible = set[str]()
    for state in (READY, waiting(seconds=60)):
        await put(api, "sales", state)
        await tab.go("sales")
        await pill(tab.page).get_by_text("Ready" if state is READY else "Link a phone").wait_for()
        titles = await tab.page.locator("section.card:visible h2").all_inner_texts()
        visible |= set(titles) - {"Details", "History"}
        note = tab.page.locator("p.note.idle")
        if lacking:
            await expect(note).to_have_text(lacking)
        else:
            await expect(note).to_be_hidden()
    assert visible == shown
    assert sales.asked["GET /v1/pairing"] >= int("Link a phone" in shown)


async def test_a_token_that_may_not_read_sessions_says_so(tab: Tab) -> None:
    await tab.page.goto(tab.replica.url)
    await tab.page.get_by_label("Token").fill(token("maria", scope="pair"))
    await button(tab.page, "Sign in").click()
    await expect(tab.page.get_by_text("The token lacks the scope sessions:read.")).to_be_visible()


# --- the live view --------------------------------------------------------------------------------

PICTURE = """async ([color, type]) => {
  const canvas = new OffscreenCanvas(800, 600);
  const context = canvas.getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, 800, 600);
  const blob = await canvas.convertToBlob({ type });
  return [...new Uint8Array(await blob.arrayBuffer())];
}"""
COLOR = """(canvas, [width, height]) => {
  if (canvas.width !== width || canvas.height !== height) return "";
  const [red, green, blue] = canvas.getContext("2d").getImageData(9, 9, 1, 1).data;
  return red > 200 ? "red" : green > 200 ? "lime" : blue > 200 ? "blue" : "";
}"""
ADMIN: dict[str, Any] = {"subject": "root", "role": "admin"}


async def picture(page: Page, color: str, media_type: str) -> bytes:
    return bytes(await page.evaluate(PICTURE, [color, media_type]))


async def shows(page: Page, color: str) -> None:
    """Wait until the view shows a picture of this color."""
    canvas = await page.get_by_role("img", name="The page of WhatsApp Web").element_handle()
    await page.wait_for_function(
        f"([canvas, size, color]) => ({COLOR})(canvas, size) === color",
        arg=[canvas, [800, 600], color],
    )


async def test_a_screenshot_of_the_page(tab: Tab, sales: PairingPod) -> None:
    sales.live_view = True
    await tab.sign_in(**ADMIN)
    await tab.go("sales")
    sales.picture = await picture(tab.page, "red", "image/png")
    await button(tab.page, "Screenshot").click()
    await shows(tab.page, "red")
    await expect(tab.page.get_by_text("A screenshot of")).to_be_visible()
    await button(tab.page, "Close").click()
    await expect(tab.page.get_by_role("img", name="The page of WhatsApp Web")).to_be_hidden()


async def test_watching_the_page(tab: Tab, sales: PairingPod) -> None:
    sales.live_view = True
    await tab.sign_in(**ADMIN)
    await tab.go("sales")
    sales.picture = await picture(tab.page, "blue", "image/jpeg")
    await button(tab.page, "Watch").click()
    await shows(tab.page, "blue")
    await expect(tab.page.get_by_text("Live. It ends after 5 minutes.")).to_be_visible()
    sales.show(await picture(tab.page, "lime", "image/jpeg"))
    await shows(tab.page, "lime")
    assert sales.viewers == 1
    await tab.page.evaluate(AXE.read_text())
    result = await tab.page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in result["violations"]] == []
    await button(tab.page, "Close").click()
    await until(lambda: sales.viewers == 0)
    await button(tab.page, "Watch").click()
    await until(lambda: sales.viewers == 1)
    await tab.page.get_by_role("link", name="All sessions").click()
    await until(lambda: sales.viewers == 0)


async def test_a_view_that_ends_says_so(tab: Tab, api: ApiServer, sales: PairingPod) -> None:
    sales.live_view = True
    await tab.sign_in(**ADMIN)
    await tab.go("sales")
    sales.picture = await picture(tab.page, "blue", "image/jpeg")
    await button(tab.page, "Watch").click()
    await shows(tab.page, "blue")
    sales.torn = True
    await expect(tab.page.get_by_text("It has ended")).to_be_visible()
    await expect(tab.page.get_by_role("img", name="The page of WhatsApp Web")).to_be_hidden()
    sales.torn = False
    await button(tab.page, "Watch").click()
    await shows(tab.page, "blue")
    await put(api, "sales", status("Hibernated", "Idle"))
    await expect(button(tab.page, "Watch")).to_be_hidden()
    await until(lambda: sales.viewers == 0)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"live_view": False}, "spec.browser.liveView is off."),
        ({"picture_type": "text/html"}, "responded with something else."),
        ({"picture": b"nonsense"}, "could not be decoded."),
    ],
)
async def test_a_page_that_cannot_be_looked_at(
    tab: Tab, sales: PairingPod, broken: dict[str, Any], message: str
) -> None:
    for name, value in ({"live_view": True} | broken).items():
        setattr(sales, name, value)
    await tab.sign_in(**ADMIN)
    await tab.go("sales")
    for look in ("Screenshot", "Watch"):
        await button(tab.page, look).click()
        await expect(tab.page.get_by_role("alert").filter(has_text=message)).to_be_visible()
        await expect(button(tab.page, "Watch")).to_be_enabled()
    await until(lambda: sales.viewers == 0)


@pytest.mark.parametrize(
    "claims",
    [
        {"subject": "maria"},
        {**ADMIN, "scope": "sessions:read messages:read"},
        {**ADMIN, "scope": "sessions:read pair"},
    ],
)
async def test_who_may_not_look_is_not_asked_to(
    tab: Tab, sales: PairingPod, claims: dict[str, Any]
) -> None:
    await tab.sign_in(**claims)
    await tab.go("sales")
    await pill(tab.page).get_by_text("Ready").wait_for()
    await expect(button(tab.page, "Watch")).to_be_hidden()


# --- without a connection -------------------------------------------------------------------------


async def test_a_lost_connection_is_shown_and_restored(open_tab: Open, api: ApiServer) -> None:
    await put(api, "sales", status("Starting", "PageLoading"))
    async with contextlib.AsyncExitStack() as stack:
        first = await Replica(api).start()
        tab = await open_tab(first)
        await tab.sign_in()
        await expect(tab.page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        await first.stop()
        await expect(tab.page.get_by_role("alert")).to_contain_text("No connection to the gateway.")
        await button(tab.page, "New session").click()
        await tab.page.get_by_label("Name").fill("another")
        await button(tab.page, "Create").click()
        await expect(tab.page.get_by_role("dialog")).to_contain_text(
            "The gateway cannot be reached."
        )
        await button(tab.page, "Cancel").click()
        await put(api, "sales", READY)
        again = await Replica(api, port=urlsplit(first.url).port).start()
        stack.push_async_callback(again.stop)
        await expect(tab.page.get_by_role("link", name="sales")).to_contain_text("Ready")
        await expect(tab.page.get_by_role("alert")).to_be_hidden()


# --- for everybody --------------------------------------------------------------------------------


async def test_with_the_keyboard_alone(tab: Tab, api: ApiServer) -> None:
    await put(api, "sales", READY)
    await tab.sign_in()
    page, press = tab.page, tab.page.keyboard.press
    await page.reload()
    await page.get_by_role("link", name="sales").wait_for()
    order = []
    for _ in range(5):
        await press("Tab")
        order.append(await page.evaluate("document.activeElement.textContent.trim()"))
        assert (
            await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        )
    assert order[:4] == ["Skip to content", "wasession", "Sign out", "New session"]
    assert order[4].startswith("sales")
    await press("Enter")
    await expect(page.get_by_role("heading", name="sales", level=1)).to_be_focused()
    opener = button(page, "Delete…")
    await opener.focus()
    await press("Enter")
    dialog = page.get_by_role("dialog", name="Delete sales?")
    await expect(dialog.get_by_label("Keep it")).to_be_focused()
    await press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(opener).to_be_focused()


async def walk(tab: Tab, api: ApiServer, sales: PairingPod) -> AsyncIterator[str]:
    """Yield on every page and dialog."""
    await sales.offers(FIRST, 1)
    for name, state in {"warehouse": READY, **OTHERS}.items():
        await put(api, name, state)
    await api.put("sales", api.session("sales")["spec"], waiting(seconds=60))
    sales.deliveries = [failing(), delivering()]
    await api.status("sales", delivery=delivery_states(*sales.deliveries))
    await tab.page.goto(tab.replica.url)
    await tab.page.get_by_label("Token").wait_for()
    yield "sign-in"
    await tab.sign_in()
    await tab.page.get_by_role("link", name="warehouse").wait_for()
    yield "list"
    for name in ("sales", "warehouse", *OTHERS):
        await tab.go(name)
        await pill(tab.page).wait_for()
        yield name
    await tab.go("warehouse")
    for opener in ("Suspend…", "Log out…", "Delete…"):
        await button(tab.page, opener).click()
        yield opener
        await tab.page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(
    open_tab: Open, api: ApiServer, sales: PairingPod, scheme: str
) -> None:
    tab = await open_tab(color_scheme=scheme, reduced_motion="reduce")
    async for where in walk(tab, api, sales):
        await tab.page.evaluate(AXE.read_text())
        result = await tab.page.evaluate("axe.run()")
        assert [(one["id"], one["nodes"][0]["html"]) for one in result["violations"]] == [], where


async def test_on_a_phone_everything_fits_and_is_large_enough(
    open_tab: Open, api: ApiServer, sales: PairingPod
) -> None:
    tab = await open_tab(viewport=PHONE, has_touch=True, is_mobile=True)
    async for where in walk(tab, api, sales):
        assert await tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], (
            where
        )
        for element in await tab.page.locator(
            "button:visible, select:visible, input:visible:not([type=radio]):not([type=checkbox])"
        ).all():
            box = await element.bounding_box()
            assert box is not None
            assert box["height"] >= 44, (where, await element.inner_text())


def test_tokens_of_the_tests_look_like_tokens() -> None:
    """``Tab`` searches URLs for them by their beginning."""
    assert token("maria").startswith("eyJ")
