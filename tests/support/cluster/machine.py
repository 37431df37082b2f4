"""The machine that the cluster runs in: PID, mount and network namespaces under one init process.

Whatever the cluster starts, mounts or configures lives in these namespaces, so when their first
process ends, the kernel removes all of it, however the cluster ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from support.cluster import binaries
from support.cluster.waiting import wait_for
from support.processes import ENDS_WITH_PARENT

BRIDGE = "wabr0"
HOST_INTERFACE = "wasession0"  # the host's end of the veth pair into the machine
ADDRESS = "172.30.0.1"
HOST_ADDRESS = "172.30.255.254"
PREFIX = 16
# Connections of processes that were killed hold the network namespace for minutes otherwise.
SHORT_LIVED = "net.ipv4.tcp_orphan_retries=1 net.ipv4.tcp_fin_timeout=5"
# kube-controller-manager's host-path provisioner creates its volumes here; not configurable.
PROVISIONER_DIRECTORY = Path("/tmp/hostpath_pv")


class Machine:
    """One set of namespaces for one directory of state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pid_file = directory / "machine.pid"

    def start(self, *, detached: bool) -> None:
        """Create the namespaces.

        Unless ``detached``, they end with the calling thread, even if it is killed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        PROVISIONER_DIRECTORY.mkdir(exist_ok=True)
        volumes = self.directory / "volumes"
        volumes.mkdir(exist_ok=True)
        volumes.chmod(0o777)
        unshare = ["unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc"]
        leash = () if detached else ENDS_WITH_PARENT
        init = [str(binaries.path("pause")), str(self.directory)]
        process = subprocess.Popen([*leash, *unshare, *init], start_new_session=True)
        self._pid_file.write_text(str(process.pid))
        wait_for("the machine's first process", lambda: self._first_process() is not None, 10)
        self.run(
            "sh", "-ec",
            f"mount --make-rprivate / && mount -t tmpfs tmpfs /run && "
            f"mount --bind {volumes} {PROVISIONER_DIRECTORY} && "
            f"ip link set lo up && ip link add {BRIDGE} type bridge && "
            f"ip address add {ADDRESS}/{PREFIX} dev {BRIDGE} && ip link set {BRIDGE} up && "
            f"sysctl -qw net.ipv4.ip_forward=1 {SHORT_LIVED}",
        )  # fmt: skip
        _ip(f"link add {HOST_INTERFACE} type veth peer name cable netns {self._first_process()}")
        _ip(f"link set {HOST_INTERFACE} alias {self.directory}")
        _ip(f"address add {HOST_ADDRESS}/{PREFIX} dev {HOST_INTERFACE}")
        _ip(f"link set {HOST_INTERFACE} up")
        self.run("ip", "link", "set", "cable", "master", BRIDGE, "up")

    def stop(self) -> None:
        """Kill the first process and wait until the kernel has removed everything in it."""
        pid = self._process()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:  # another program started it
                wait_for("the end of the machine", lambda: self._process() is None, 30)
        if cabled_directory() == self.directory:
            remove_cable()
        self._pid_file.unlink(missing_ok=True)
        if PROVISIONER_DIRECTORY.exists():
            PROVISIONER_DIRECTORY.rmdir()

    @property
    def running(self) -> bool:
        return self._first_process() is not None

    def run(self, *command: str) -> str:
        """Run a command in the machine and return its output; raises ``RuntimeError``."""
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout

    def spawn(self, log: Path, *command: str) -> None:
        """Start a program in the machine, detached; its output goes to ``log``."""
        with log.open("ab") as output:
            subprocess.Popen(
                self.inside("setsid", "--fork", *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ).wait()

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` in the machine's namespaces."""
        pid = self._first_process()
        if pid is None:
            raise RuntimeError(f"the cluster in {self.directory} is not running")
        return ["nsenter", f"--target={pid}", "--pid", "--mount", "--net", "--", *command]

    def _process(self) -> int | None:
        """Return the PID of ``unshare``, the machine as seen from outside; None if it has ended."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self.directory).encode() in command else None

    def _first_process(self) -> int | None:
        """Return the outside PID of the process that is PID 1 inside; None if it is not up."""
        pid = self._process()
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ready = children and _executable(children[0]) == binaries.path("pause")
        except OSError:
            return None
        return int(children[0]) if ready else None


def running_directory() -> Path | None:
    """Return the directory of the cluster that is running on this machine, if any."""
    directory = cabled_directory()
    return directory if directory is not None and Machine(directory).running else None


def cabled_directory() -> Path | None:
    """Return the directory of the cluster that the host's interface belongs to, from its alias."""
    try:
        return Path(Path(f"/sys/class/net/{HOST_INTERFACE}/ifalias").read_text().strip())
    except OSError:
        return None


def remove_cable() -> None:
    """Delete the host's interface; after the machine's end the kernel may take a minute for it."""
    subprocess.run(["ip", "link", "delete", HOST_INTERFACE], capture_output=True, check=False)


def _executable(pid: str) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
