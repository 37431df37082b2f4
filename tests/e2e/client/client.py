"""An application in a pod of the cluster, with aiohttp and python-socketio of the gateway's image.

``listen`` emits the ``init`` in its arguments and prints each Socket.IO event as a line of JSON;
``load`` sends requests at a rate until its input ends, and prints how many had which outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import sys
from typing import Any

import aiohttp
import socketio

NAMESPACE = "/whatsapp"
PATH = "/whatsapp/sessions"


def show(event: str, content: object) -> None:
    print(json.dumps([event, content]), flush=True)


async def listen(url: str, token: str, init: dict[str, Any]) -> None:
    """Print all events until killed; the library reconnects by itself."""
    client = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=1)

    @client.on("connect", namespace=NAMESPACE)  # type: ignore[untyped-decorator]
    async def connected() -> None:
        show("connected", {})
        await client.emit(
            "init", init, namespace=NAMESPACE, callback=lambda answer: show("init", answer)
        )

    @client.on("*", namespace=NAMESPACE)  # type: ignore[untyped-decorator]
    async def received(event: str, data: object = None) -> None:
        show(event, data)

    await client.connect(
        url, namespaces=[NAMESPACE], auth={"token": token}, wait_timeout=10, retry=True
    )
    await client.wait()


async def load(url: str, token: str, rate: float) -> None:
    """Send half of the requests over reused connections, half over a new one each."""
    headers = {"Authorization": f"Bearer {token}"}
    outcomes: collections.Counter[str] = collections.Counter()
    timeout = aiohttp.ClientTimeout(total=20)

    async def ask(http: aiohttp.ClientSession) -> None:
        try:
            async with http.get(url + PATH, headers=headers) as answer:
                await answer.read()
                outcomes[str(answer.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            outcomes[f"{type(error).__name__}: {error}"] += 1

    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    async with (
        aiohttp.ClientSession(timeout=timeout) as reusing,
        aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
        ) as closing,
        asyncio.TaskGroup() as requests,
    ):
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        show("started", {})
        while not ended.done():
            requests.create_task(ask(closing if number % 2 else reusing))
            due, number = due + 1 / rate, number + 1
            await asyncio.sleep(max(0, due - loop.time()))
    show("outcomes", outcomes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["listen", "load"])
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument(
        "argument", type=json.loads, help="the payload of init, or the requests per second"
    )
    given = parser.parse_args()
    program = listen if given.what == "listen" else load
    asyncio.run(program(given.url, given.token, given.argument))


if __name__ == "__main__":
    main()
