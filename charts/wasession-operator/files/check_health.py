"""Ask each replica behind some headless Services whether it is ready, until each one is.

Every argument is ``host:port``. The exit code is 1 when a Service has no replicas, or one of them
is not ready within a minute.
"""

import http.client
import socket
import sys
import time

PATIENCE = 60.0  # seconds
AGAIN_AFTER = 2.0  # seconds


def unready(host: str, port: int) -> list[str]:
    """Return what is wrong with the replicas of a Service."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return [f"{host}: no replicas: {error}"]
    addresses = sorted({str(address[4][0]) for address in found})
    return [
        f"{host}: {address}: {problem}"
        for address in addresses
        if (problem := ask(address, port)) is not None
    ]


def ask(address: str, port: int) -> str | None:
    """Return why a replica is not ready, or None."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
    return None if status == http.client.OK else f"/readyz answers {status}"


def main(targets: list[str]) -> int:
    """Check until all are ready or the time is up; return the exit code."""
    services = [(host, int(port)) for host, _, port in (t.rpartition(":") for t in targets)]
    end = time.monotonic() + PATIENCE
    while problems := [problem for service in services for problem in unready(*service)]:
        if time.monotonic() > end:
            print(*problems, sep="\n")
            return 1
        time.sleep(AGAIN_AFTER)
    print("all replicas are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
