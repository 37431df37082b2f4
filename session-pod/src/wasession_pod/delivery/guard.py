"""Where webhooks and sinks may go: hosts that the class allows, at addresses that are not private.

Whoever may create sessions chooses the URLs, and must not reach what only the pod can reach: the
node, the cloud's metadata, other tenants. A name is resolved for each connection, and what it
resolves to is checked right before connecting, so a name that changes its address gains nothing.
"""

from __future__ import annotations

import asyncio
import fnmatch
import functools
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp.abc import AbstractResolver, ResolveResult
from wasession_api.v1alpha1.delivery import DeliveryPolicy

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOK_UPS = 4  # names at a time
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


class Forbidden(OSError):
    """The class does not allow this destination; the message says why."""


@dataclass(frozen=True)
class Guard:
    """``hosts``: patterns such as ``*.example.com``; any host if there are none.

    ``networks`` are allowed although they are private.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, policy: DeliveryPolicy) -> Guard:
        """Return what a class allows."""
        networks = (ipaddress.ip_network(one, strict=False) for one in policy.allowed_networks)
        return cls(tuple(policy.allowed_hosts), tuple(networks))

    def check_host(self, host: str) -> None:
        """Raise ``Forbidden`` for a host, or an address in a URL, that is not allowed."""
        name = host.rstrip(".").lower()
        if self.hosts and not any(fnmatch.fnmatchcase(name, one.lower()) for one in self.hosts):
            raise Forbidden(f"the session's class does not allow deliveries to {host}")
        if (address := _parse_address(name)) is not None:
            self.check_address(address)

    def check_address(self, address: Address) -> None:
        """Raise ``Forbidden`` for an address that is not public, unless it is allowed."""
        reached = _reached_by(address)
        if any(reached in network for network in self.networks):
            return
        if not reached.is_global or reached.is_multicast:
            raise Forbidden(
                f"{address} is not a public address, and the session's class does not allow "
                "deliveries to it"
            )


def _parse_address(host: str) -> Address | None:
    """Return the address that a URL's host stands for, also in the forms that libc knows."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host))  # 127.1, 0x7f000001, 017700000001
    except OSError:
        return None


def _reached_by(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one leads to, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class OwnThreads(AbstractResolver):
    """Resolves names in threads of its own: a silent DNS server must not hold up other work."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = functools.partial(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(_threads(), look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: all resolvers share the threads."""


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="dns")


class GuardedResolver(AbstractResolver):
    """Resolves names to addresses that are allowed; raises ``Forbidden`` if none is."""

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._resolver = resolver or OwnThreads()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed, refusal = list[ResolveResult](), None
        for one in found:
            try:
                self._guard.check_address(ipaddress.ip_address(one["host"].partition("%")[0]))
            except Forbidden as error:
                refusal = error
            else:
                allowed.append(one)
        if not allowed and refusal is not None:
            raise Forbidden(f"{host}: {refusal}")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
