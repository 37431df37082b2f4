"""What the console's tests share: sessions in every state, a pod with link codes, browser tabs."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import segno
import zxingcpp
from aiohttp import web
from integration.gateway.fakes import ApiServer, Pod, now
from integration.gateway.replica import Replica, token
from playwright.async_api import Page, Request
from wasession_api.base import rfc3339

Body = dict[str, Any]
PIXELS = """async (image) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 400;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, 400, 400);
  context.drawImage(image, 0, 0, 400, 400);
  return [...context.getImageData(0, 0, 400, 400).data.filter((_, index) => index % 4 === 0)];
}"""


def past(**ago: float) -> str:
    return rfc3339(datetime.now(UTC) - timedelta(**ago))


def status(phase: str, reason: str, message: str = "", **more: Any) -> Body:
    """Return a status as the operator writes it."""
    ready, valid = phase == "Ready", more.pop("valid", phase == "Ready")
    restored = "Restored" if more.get("restored") else "NewLogin" if ready else "NoLogin"
    conditions = [
        ("Ready", ready, reason, message, past(minutes=4)),
        (
            "PodReady",
            "podName" in more,
            "PodRunning" if "podName" in more else "PodMissing",
            "",
            past(minutes=5),
        ),
        ("StorageReady", True, "VolumeBound", "", past(days=12)),
        ("Authenticated", ready, reason, message, past(minutes=4)),
        ("Restored", restored == "Restored", restored, "", past(minutes=4)),
        (
            "Degraded",
            phase == "Failed",
            reason if phase == "Failed" else "AsExpected",
            message,
            past(minutes=4),
        ),
    ]
    listed = [
        {
            "type": kind,
            "status": str(truth),
            "reason": why,
            "message": message,
            "lastTransitionTime": since,
        }
        for kind, truth, why, message, since in conditions
    ]
    return {
        "phase": phase,
        "sessionValid": valid,
        "isAuthenticated": ready,
        "conditions": listed,
        **more,
    }


def account(number: str, name: str) -> Body:
    return {"id": f"{number}@c.us", "pushName": name, "platform": "android"}


class PairingPod(Pod):
    """A session pod that offers link codes as the real one does."""

    def __init__(self, session_uid: str) -> None:
        super().__init__(session_uid)
        self.refreshed = 0
        self.refusals: list[web.Response] = []  # responses to the next sends

    async def _pairing(self, request: web.Request) -> web.Response:
        if self.code is None:
            return await super()._pairing(request)
        if "image/svg+xml" in request.headers["Accept"]:
            picture = io.BytesIO()
            segno.make(self.code).save(picture, kind="svg", scale=8, border=4)
            return web.Response(body=picture.getvalue(), content_type="image/svg+xml")
        return web.json_response({**self.state["pairing"], "code": self.code})

    async def _refresh(self, request: web.Request) -> web.Response:
        self.refreshed += 1
        return await super()._refresh(request)

    async def _send(self, request: web.Request) -> web.Response:
        if self.refusals:
            self.sent.append({"key": request.headers["Idempotency-Key"]})
            return self.refusals.pop(0)
        return await super()._send(request)


READY = status(
    "Ready",
    "Connected",
    podName="pod",
    podUID="1",
    restored=True,
    restorations=3,
    lastConnected=past(hours=5),
    account=account("15551234567", "Sales Europe"),
    lastDisconnect={"at": past(hours=6), "kind": "Connection", "reason": "TIMEOUT"},
)


def waiting(method: str = "QRCode", seconds: float = 20) -> Body:
    """Return the status of a session that shows a link code."""
    pairing = {"available": True, "method": method, "attempt": 1, "expiresAt": now(seconds=seconds)}
    return status(
        "Authenticating",
        "WaitingForScan",
        "Waiting for a phone to be linked.",
        podName="pod",
        podUID="1",
        pairing=pairing,
    )


OTHERS: dict[str, Body] = {
    "bank": status(
        "Failed",
        "AccountBlocked",
        "WhatsApp has blocked the account for its terms of service.",
        valid=True,
        account=account("15550004444", "Bank"),
    ),
    "legacy": status(
        "LoggedOut",
        "LoggedOutByPhone",
        "WhatsApp has ended this login.",
        lastConnected=past(days=9),
    ),
    "newsletter": status(
        "Suspended",
        "Suspended",
        valid=True,
        lastConnected=past(days=3),
        account=account("15550003333", "Newsletter"),
    ),
    "press": status(
        "Failed", "PairingExpired", "No phone was linked in 5 rounds.", podName="pod", podUID="1"
    ),
    "support": status(
        "Restoring",
        "LoginRestoring",
        "Opening WhatsApp Web with the stored login.",
        valid=True,
        lastConnected=past(minutes=2),
        account=account("15550002222", "Support"),
    ),
}


async def put(api: ApiServer, name: str, state: Body, owner: str = "maria", **spec: Any) -> str:
    """Create or change a session; return its UID."""
    body = await api.put(
        name,
        {"owner": owner, "clientId": name, "suspend": state["phase"] == "Suspended", **spec},
        state,
    )
    return str(body["metadata"]["uid"])


class Tab:
    """A browser tab with the console.

    ``problems`` has its errors, its requests to other hosts, and URLs with a token in them.
    """

    def __init__(self, page: Page, replica: Replica) -> None:
        self.page, self.replica = page, replica
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._look)

    async def sign_in(self, subject: str = "maria", **claims: Any) -> None:
        await self.page.goto(self.replica.url)
        await self.page.get_by_label("Token").fill(token(subject, **claims))
        await self.page.keyboard.press("Enter")
        await self.page.get_by_role("heading", name="Sessions", exact=True).wait_for()

    async def go(self, session: str, query: str = "") -> None:
        """To a session's page, when the gateway knows the session."""
        await self.replica.caught_up()
        await self.page.goto(f"{self.replica.url}/#/sessions/{session}{query}")
        await self.page.get_by_role("heading", name=session, level=1).wait_for()

    async def qr(self) -> str | None:
        """What a phone's camera reads from the QR on the page."""
        image = self.page.get_by_role("img", name="QR to scan with WhatsApp on the phone")
        pixels = bytes(await image.evaluate(PIXELS))
        barcodes = zxingcpp.read_barcodes(memoryview(pixels).cast("B", shape=[400, 400]))
        return barcodes[0].text if barcodes else None

    def _look(self, request: Request) -> None:
        asked, gateway = urlsplit(request.url), urlsplit(self.replica.url)
        if asked.scheme not in ("data", "blob") and asked.netloc != gateway.netloc:
            self.problems.append(f"a request to {request.url}")
        if "eyJ" in request.url:
            self.problems.append(f"a token in {request.url}")
