"""Who tells a webhook of messages: the session pod, and whatsapp-web.js with a plain loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.delivery.pod import KEY
from bench.session_pod.contenders import Contender, SessionPod, WhatsAppWebJs


class WithWebhooks(SessionPod):
    """The session pod, whose webhook outlives its restarts."""

    name = "wasession"

    def __init__(self, directory: Path, flags: list[str]) -> None:
        super().__init__(directory, flags)
        self._keys = directory.with_suffix(".keys")
        self._keys.mkdir()
        (self._keys / "bench").write_text(KEY)

    @property
    def settings(self) -> Mapping[str, str]:
        return {**super().settings, "delivery_secret": str(self._keys)}

    async def tell(self, url: str) -> None:
        webhook = {"name": "bench", "url": url, "signingKey": "bench"}
        configuration = {"webhooks": [webhook], "policy": {"allowedNetworks": ["127.0.0.0/8"]}}
        async with self._http.put(f"{self._url}/v1/deliveries", json=configuration) as response:
            assert response.status == 200, await response.text()


class WithLoop(WhatsAppWebJs):
    """``client.on("message")`` with one POST for each message, as applications of it do."""

    async def tell(self, url: str) -> None:
        await self.order("tell", url=url)


CONTENDERS: tuple[type[Contender], ...] = (WithWebhooks, WithLoop)
