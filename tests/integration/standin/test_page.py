"""The page as unmodified wa-js sees it: linking, logging out, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from integration.standin.conftest import ME, Client
from support.standin import PasskeyRequired, Phone, PhoneError, Running
from support.standin.world import Fault

MODES: dict[Fault, str] = {
    "replaced": "CONFLICT",
    "proxy": "PROXYBLOCK",
    "tos": "TOS_BLOCK",
    "smb_tos": "SMB_TOS_BLOCK",
}


async def test_scanned_qr_leads_to_main_and_a_reload_needs_no_qr(
    client: Client, phone: Phone
) -> None:
    device = await client.login(phone)
    seen = [event for event in await client.events() if event[0] == "conn.stream_mode_changed"]
    assert [mode for _, mode in seen] == ["QR", "SYNCING", "MAIN"]
    assert {"conn.require_auth", "conn.authenticated", "conn.main_loaded"} <= await client.names()
    assert await client.snapshot() == {
        "state": "CONNECTED", "mode": "MAIN", "info": "NORMAL", "registered": True,
        "me": f"{ME}@c.us",
    }  # fmt: skip
    [linked] = await phone.devices()
    assert (linked.id, linked.phone, linked.online) == (device, ME, True)
    await client.open()
    await client.ready()
    assert not {"conn.require_auth", "conn.authenticated"} & await client.names(), (
        "wa-js tells these only of a first login"
    )
    assert client.errors == []


async def test_qrs_rotate_until_the_page_is_idle_and_can_be_refreshed(
    client: Client, phone: Phone
) -> None:
    await phone.behave(first_ref_ms=2500, next_ref_ms=300, refs=3)
    await client.open()
    await client.until_event("conn.qrcode_idle")
    codes = [event[1] for event in await client.events() if event[0] == "conn.auth_code_change"]
    assert len(set(codes) - {"null"}) == 3
    assert (await client.snapshot())["state"] == "UNPAIRED_IDLE"
    await phone.behave(first_ref_ms=60_000)
    await client.page.evaluate("() => require('WAWebLaunchSocketUtils').refreshQR()")
    await phone.scan(await client.qr())
    await client.ready()


async def test_phone_refuses_what_no_page_shows(client: Client, phone: Phone) -> None:
    await client.open()
    code = await client.qr()
    ref, noise, *rest = code.split(",")
    for wrong, status in (
        (ref, 400),
        (",".join(["2@bm9uZQ==", noise, *rest]), 410),
        (",".join([ref, "bm9uZQ==", *rest]), 409),
    ):
        with pytest.raises(PhoneError) as error:
            await phone.scan(wrong)
        assert error.value.status == status
    with pytest.raises(PhoneError) as error:
        await phone.type_code("ABCDEFGH")
    assert error.value.status == 403


async def test_page_shows_the_qr_that_wa_js_tells(client: Client) -> None:
    await client.open()
    code = await client.qr()
    assert await client.page.locator("[data-ref]").get_attribute("data-ref") == code


async def test_pairing_code_links_the_phone_it_was_made_for(client: Client, phone: Phone) -> None:
    await client.open()
    await client.qr()
    await client.page.evaluate("(phone) => WPP.conn.startLinkDeviceCodeForPhoneNumber(phone)", ME)
    await client.until_event("conn.link_code_change")
    code = next(event[1] for event in await client.events() if event[0] == "conn.link_code_change")
    with pytest.raises(PhoneError):
        await phone.type_code(code, "15557654321")
    await phone.type_code(f"{code[:4]}-{code[4:]}", ME)
    await client.ready()


async def test_pairing_code_expires(
    client: Client, phone: Phone, world: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.standin.offers.GRACE", 0)
    await phone.behave(code_seconds=0.001)
    await client.open()
    await client.qr()
    code: str = await client.page.evaluate(
        "(phone) => WPP.conn.genLinkDeviceCodeForPhoneNumber(phone)", ME
    )
    with pytest.raises(PhoneError, match="expired") as error:
        await phone.type_code(code, ME)
    assert error.value.status == 410


async def test_account_with_a_passkey_is_asked_for_it(client: Client, phone: Phone) -> None:
    await phone.behave(passkey_accounts=[ME])
    await client.open()
    with pytest.raises(PasskeyRequired):
        await phone.scan(await client.qr(), ME)
    await client.page.get_by_test_id("shortcake_passkey_screen").wait_for()
    assert (await client.snapshot())["state"] == "UNPAIRED"
    assert await phone.devices() == []
    await client.page.evaluate(
        """() => require('WAWebLinkDeviceEvents').WAWebLinkDeviceEvents
             .once('link_device_events:shortcake_error', () => (window.__shortcake = true))"""
    )
    await client.page.get_by_role("button", name="Continue").click()
    await client.until(
        "() => window.__shortcake === true"
    )  # this origin isn't whatsapp.com: no authenticator answers
    await phone.confirm_passkey(ME)
    await client.ready()


async def test_phone_refuses_more_devices_than_the_account_may_have(
    new_client: Callable[[], Any], phone: Phone
) -> None:
    first, second = await new_client(), await new_client()
    await phone.behave(max_devices=1)
    await asyncio.gather(first.login(phone), second.open())
    with pytest.raises(PhoneError) as error:
        await phone.scan(await second.qr())
    assert error.value.status == 409


@pytest.mark.parametrize("legacy", [False, True])
async def test_logout_on_the_phone(client: Client, phone: Phone, legacy: bool) -> None:
    await phone.behave(legacy_cmd=legacy)
    await client.login(phone)
    await client.page.evaluate(
        """() => addEventListener('pagehide', () =>
             localStorage.setItem('seen', JSON.stringify(window.__events)))"""
    )
    assert await phone.logout(ME) == 1
    await client.until_snapshot(mode="QR", registered=False, state="UNPAIRED")
    assert any("post_logout=1&logout_reason=0" in url for url in client.visited)
    assert "post_logout" not in client.page.url
    seen = [
        tuple(event)
        for event in await client.page.evaluate("() => JSON.parse(localStorage.getItem('seen'))")
    ]
    assert ("conn.logout_reason", "unknown_companion") in seen
    assert (("conn.backend_event", "starting_logout") in seen) is legacy
    await phone.scan(await client.qr(), "15557654321")
    await client.ready()


async def test_logout_of_one_device_leaves_the_other(
    new_client: Callable[[], Any], phone: Phone
) -> None:
    first, second = await new_client(), await new_client()
    device, _ = await asyncio.gather(first.login(phone), second.login(phone))
    assert await phone.logout(ME, device) == 1
    await first.until_snapshot(mode="QR")
    await second.ready()
    assert len(await phone.devices(ME)) == 1


async def test_other_ways_out(client: Client, phone: Phone) -> None:
    """Each of them leads back to the QR, with its reason in the URL."""

    async def logged_out(marker: str) -> None:
        await client.until_snapshot(mode="QR", registered=False, state="UNPAIRED")
        assert [url for url in client.visited if "post_logout" in url][-1].endswith(marker)

    await client.login(phone)
    await client.page.evaluate("() => { require('WAWebSocketModel').Socket.logout(); }")
    await logged_out("?post_logout=1")
    assert await phone.devices() == []

    await client.login(phone)
    assert await phone.absent(ME, 14) == 0
    await client.ready()
    assert await phone.absent(ME, 15) == 1
    await logged_out("?post_logout=1&logout_reason=0")

    await client.login(phone)
    await phone.fault("locked", ME)
    await logged_out("?post_logout=1&logout_reason=3")

    await client.login(phone)
    await phone.fault("storage")
    await logged_out("?post_logout=1&logout_reason=0")
    assert len(await phone.devices()) == 2, (
        "the server isn't told of either: the phone still lists both"
    )


async def test_blocks_and_conflict_show_in_the_mode_until_a_takeover(
    client: Client, phone: Phone
) -> None:
    await client.login(phone)
    for kind, mode in MODES.items():
        assert await phone.fault(kind, ME, seconds=60) == 1
        await client.until_snapshot(mode=mode, state=mode, registered=True)
        await phone.heal()
        await client.page.evaluate("() => { require('WAWebSocketModel').Socket.takeover(); }")
        await client.ready()
    await phone.fault("outdated")
    await client.until_event("conn.needs_update")
    await client.until_snapshot(state="DEPRECATED_VERSION", registered=True)


async def test_second_page_with_the_same_login_replaces_the_first(
    client: Client, phone: Phone
) -> None:
    await client.login(phone)
    second = Client(await client.page.context.new_page(), client.page.url.rstrip("/"))
    await second.open()
    await second.ready()
    await client.until_snapshot(mode="CONFLICT")


async def test_lost_connection_comes_back(client: Client, phone: Phone) -> None:
    await client.login(phone)
    for number in (None, ME):
        await phone.fault("refuse", number, seconds=60)
        await client.until_snapshot(state="OPENING", info="OPENING", mode="MAIN", registered=True)
        await phone.heal()
        await client.ready()


async def test_temporary_ban_keeps_the_login_and_ends(client: Client, phone: Phone) -> None:
    await client.login(phone)
    await client.page.evaluate(
        """() => { window.__bans = []; require('WAWebCmd').Cmd
             .on('account_temporarily_banned_from_bridge', (ban) => window.__bans.push(ban)); }"""
    )
    await phone.fault("banned", seconds=60)
    await client.until("() => window.__bans.some((ban) => ban.banned && ban.code === 101)")
    await client.until_snapshot(state="OPENING", registered=True)
    await phone.heal()
    await client.ready()
    await client.until("() => window.__bans.at(-1).banned === false")


async def test_faults_of_one_account_are_nobody_elses(
    new_client: Callable[[], Any], phone: Phone
) -> None:
    first, second = await new_client(), await new_client()
    await asyncio.gather(first.login(phone, ME), second.login(phone, "15557654321"))
    await phone.fault("replaced", ME)
    await first.until_snapshot(mode="CONFLICT")
    await second.ready()
    assert sorted(device.phone for device in await phone.devices()) == [ME, "15557654321"]


async def test_slow_sync_shows_its_progress(client: Client, phone: Phone) -> None:
    await phone.behave(sync_seconds=1)
    await client.open()
    await phone.scan(await client.qr())
    await client.until_snapshot(mode="SYNCING", info="SYNCING", state="CONNECTED")
    await client.until(
        """() => {
          const { progress } = WPP.conn.getHistorySyncProgress();
          return progress > 0 && progress < 100; }"""
    )
    await client.ready()
    assert (await client.page.evaluate("() => WPP.conn.getHistorySyncProgress()"))[
        "progress"
    ] == 100


async def test_older_generation_has_what_wa_js_calls(client: Client, phone: Phone) -> None:
    await phone.behave(legacy_cmd=True)
    await client.open()
    before = await client.qr()
    await client.page.evaluate("() => WPP.conn.refreshQR()")
    assert await client.qr() != before
    await phone.scan(await client.qr())
    await client.ready()


async def test_newer_generation_lacks_what_wa_js_calls(client: Client) -> None:
    await client.open()
    await client.qr()
    assert (
        await client.page.evaluate(
            "() => WPP.conn.refreshQR().then(() => null, (error) => error.name)"
        )
        == "TypeError"
    )


async def test_late_bundle_and_no_debug_global_are_enough_for_wa_js(
    client: Client, phone: Phone
) -> None:
    await phone.behave(debug_global=False, late_bundle_ms=400)
    await client.open()
    await client.qr()
    assert await client.page.evaluate("() => self.Debug.VERSION") == await client.page.evaluate(
        "() => require('WAWebUpdaterVersion').SANITIZED_VERSION_STR"
    )


async def test_policy_refuses_foreign_scripts(client: Client) -> None:
    await client.open()
    injected = """() => new Promise((resolve) => {
      addEventListener('securitypolicyviolation', () => resolve(true));
      const script = document.createElement('script');
      script.textContent = 'window.__injected = true';
      document.head.append(script); setTimeout(() => resolve(false), 2000); })"""
    assert await client.page.evaluate(injected)
    assert await client.page.evaluate("() => window.__injected") is None
