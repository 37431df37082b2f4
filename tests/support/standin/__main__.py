"""``python -m support.standin``: the stand-in by itself."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from pathlib import Path

from support.standin.server import running
from support.standin.world import World


async def serve(arguments: argparse.Namespace) -> None:
    tls = None
    if arguments.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(World(arguments.state), arguments.host, arguments.port, tls) as server:
        print(f"listening on {server.url}", flush=True)
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.standin", description=__doc__)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--state", type=Path, help="file that keeps linked devices and messages")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
