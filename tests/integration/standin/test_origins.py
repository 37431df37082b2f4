"""The page's origins: the real one over TLS, and a Service's name without."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from integration.standin.conftest import ME, Client, Launch
from support.standin import PasskeyRequired, Phone, Running, running
from support.standin.tls import self_signed

REAL = "web.whatsapp.com"
SERVICE = "standin.standin.svc"


async def test_real_origin_with_an_authenticator_that_has_the_passkey(
    launch: Launch, tmp_path: Path
) -> None:
    tls, key_hash = self_signed(tmp_path, REAL)
    async with running(tls=tls) as world:
        phone = Phone(world.url, ssl.create_default_context(cafile=str(tmp_path / "tls.pem")))
        await phone.behave(passkey_accounts=[ME], refuse_automation=False)
        rules = f"--host-resolver-rules=MAP {REAL} 127.0.0.1:{world.port}"
        async with launch(rules, f"--ignore-certificate-errors-spki-list={key_hash}") as context:
            client = Client(context.pages[0], f"https://{REAL}")
            await add_passkey(client)
            await client.open()
            with pytest.raises(PasskeyRequired):
                await phone.scan(await client.qr(), ME)
            await client.page.get_by_role("button", name="Continue").click()
            await client.ready()
            assert client.page.url == f"https://{REAL}/"
        assert len(await phone.devices(ME)) == 1


async def add_passkey(client: Client) -> None:
    """Gives the browser an authenticator that holds a passkey for whatsapp.com and asks nobody."""
    cdp = await client.page.context.new_cdp_session(client.page)
    await cdp.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
    }
    options |= {"isUserVerified": True, "automaticPresenceSimulation": True}
    authenticator = await cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    credential = {
        "credentialId": base64.b64encode(b"passkey").decode(),
        "isResidentCredential": True,
        "signCount": 1,
    }
    credential |= {"rpId": "whatsapp.com", "userHandle": base64.b64encode(b"me").decode()}
    credential |= {"privateKey": base64.b64encode(private).decode()}
    await cdp.send("WebAuthn.addCredential", {**authenticator, "credential": credential})


async def test_service_name_without_tls(launch: Launch, world: Running, phone: Phone) -> None:
    origin = f"http://{SERVICE}"
    flags = (f"--host-resolver-rules=MAP {SERVICE} 127.0.0.1:{world.port}",)
    async with launch(*flags, f"--unsafely-treat-insecure-origin-as-secure={origin}") as context:
        client = Client(context.pages[0], origin)
        await client.login(phone)
        secure = """async () => [
          isSecureContext, (await indexedDB.databases()).length, typeof crypto.subtle.encrypt]"""
        assert await client.page.evaluate(secure) == [True, 3, "function"]
    assert [device.phone for device in await phone.devices()] == [ME]
    async with launch(*flags, f"--unsafely-treat-insecure-origin-as-secure={origin}") as context:
        client = Client(context.pages[0], origin)
        await client.open()
        await client.ready()


async def test_service_name_without_the_flag_is_not_enough(launch: Launch, world: Running) -> None:
    async with launch(f"--host-resolver-rules=MAP {SERVICE} 127.0.0.1:{world.port}") as context:
        page = context.pages[0]
        await page.goto(f"http://{SERVICE}/", wait_until="domcontentloaded")
        assert await page.evaluate("() => [isSecureContext, typeof crypto.subtle]") == [
            False,
            "undefined",
        ]
