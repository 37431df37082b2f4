"""``python -m wasession_pod``: hold one session until SIGTERM."""

from __future__ import annotations

import os

from wasession_pod.listening import listen


def main() -> None:
    """Listen, then import the rest: that takes seconds, for which kubelet's probes can wait."""
    port = os.environ.get("WASESSION_PORT", "8080")
    sockets = listen(os.environ.get("WASESSION_HOST"), int(port)) if port.isdecimal() else []
    from wasession_pod import run

    run.main(sockets)


if __name__ == "__main__":
    main()
