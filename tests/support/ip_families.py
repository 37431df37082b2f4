"""Networks with one IP family or with both, each in a network namespace of its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


class Families(StrEnum):
    """The addresses that a network has."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"
    DUAL = "dual stack"

    @property
    def loopback(self) -> list[str]:
        """Return the addresses as they are in a URL."""
        v4, v6 = self is not Families.IPV6, self is not Families.IPV4
        return [*(["127.0.0.1"] if v4 else []), *(["[::1]"] if v6 else [])]


def run_in(families: Families, main: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run ``main`` in a network that has only these families' loopback addresses; needs root."""

    def run() -> T:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for family, address in (("-4", "127.0.0.1/8"), ("-6", "::1/128")):
            if address.split("/")[0] not in "".join(families.loopback):
                subprocess.run(["ip", family, "address", "del", address, "dev", "lo"], check=True)
        return asyncio.run(main())

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(run).result()
