"""The benchmark's contenders can do on the stand-in what the benchmark measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.standin.world import Behaviour

from bench.session_pod.contenders import CONTENDERS, Contender, stage


@pytest.mark.parametrize("kind", CONTENDERS, ids=lambda kind: kind.name)
async def test_it_pairs_sends_and_comes_back(
    kind: type[Contender], tmp_path: Path, chromium: Path
) -> None:
    async with stage(tmp_path, Behaviour(sync_seconds=3, legacy_msg_key=True)) as here:
        contender = kind(tmp_path / "data", here.flags)
        await contender.start()
        try:
            await contender.until("qr")
            device = await here.phone.scan(contender.code)
            await contender.until("ready")
            assert await contender.send("15550001111@c.us", "first") > 0
            await contender.stop()
            await contender.start()
            assert await contender.until("ready", "qr") == "ready"
            assert await contender.send("15550001111@c.us", "second") > 0
        finally:
            await contender.kill()
        assert [message.text for message in await here.phone.messages()] == ["first", "second"]
        assert [known.id for known in await here.phone.devices()] == [device]
