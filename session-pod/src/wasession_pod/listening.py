"""The sockets of the API, with the standard library alone: they are there before anything else."""

from __future__ import annotations

import contextlib
import socket

BACKLOG = 128


def listen(host: str | None, port: int) -> list[socket.socket]:
    """Listen on a host's addresses, or on all of both IP families; raise ``OSError``.

    A family that the node does not have is left out.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets, errors = [], []
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        with contextlib.ExitStack() as stack:
            try:
                listener = stack.enter_context(socket.socket(family, kind, protocol))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
                listener.listen(BACKLOG)
            except OSError as error:
                errors.append(error)
                continue
            stack.pop_all()
            sockets.append(listener)
    if not sockets:
        raise errors[0]
    return sockets
