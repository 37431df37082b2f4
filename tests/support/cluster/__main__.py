"""``python -m support.cluster up|down|status``: the embedded cluster on its own."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from support.cluster import binaries, machine
from support.cluster.cluster import Cluster, ClusterRunning, default_directory


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=default_directory())
    arguments = parser.parse_args()
    running = machine.running_directory()
    match arguments.command:
        case "up":
            started = time.monotonic()
            cluster = Cluster(arguments.directory, arguments.nodes)
            try:
                cluster.start(detached=True)
            except ClusterRunning as error:
                raise SystemExit(str(error)) from None
            print(f"{arguments.nodes} nodes Ready in {time.monotonic() - started:.1f} s")
            print(f"export KUBECONFIG={cluster.kubeconfig_path}")
            print(f"export PATH={binaries.directory()}:$PATH")
        case "down":
            Cluster(running or arguments.directory, 0).stop()
        case "status":
            print(f"running in {running}" if running else "not running")


if __name__ == "__main__":
    main()
