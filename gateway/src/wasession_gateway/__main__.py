"""``python -m wasession_gateway``: serves until SIGTERM."""

from __future__ import annotations

import asyncio
import signal

from pydantic import ValidationError
from wasession_api import logs
from wasession_api.kube import Kube

from wasession_gateway.app import Gateway
from wasession_gateway.settings import Settings


async def serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    kube = await Kube.connect()
    try:
        async with Gateway(settings, kube):
            await stop.wait()
    finally:
        await kube.close()


def main() -> None:
    try:
        settings = Settings()
    except ValidationError as error:
        raise SystemExit(f"bad settings: {'; '.join(map(_wrong, error.errors(include_input=False)))}") from None
    logs.configure(settings.log_level)
    asyncio.run(serve(settings))


def _wrong(error: object) -> str:
    assert isinstance(error, dict)
    name = "_".join(map(str, error["loc"])).upper()
    variable = name if name == "JWT_SECRET" else f"WASESSION_{name}"
    return f"{variable if name else ''}: {error['msg']}".removeprefix(": ")


if __name__ == "__main__":
    main()
