"""``python -m wasession_gateway`` serves until SIGTERM."""

from __future__ import annotations

import asyncio
import signal

from wasession_api import logs, tracing
from wasession_api.kube.client import KubeClient

from wasession_gateway.app import Gateway
from wasession_gateway.settings import Settings, load


async def serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    kube = await KubeClient.connect("wasession-gateway")
    try:
        async with Gateway(settings, kube):
            await stop.wait()
    finally:
        await kube.close()


def main() -> None:
    settings = load()
    logs.configure(settings.log_level)
    tracing.configure("wasession-gateway")
    try:
        asyncio.run(serve(settings))
    finally:
        tracing.close()


if __name__ == "__main__":
    main()
