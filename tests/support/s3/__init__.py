"""A real S3 server, rclone's ``serve s3``, built from the Go module beside this file.

What it does not check, and AWS does, so that no test may rely on it: the region of a signature;
that the date of a signature's scope is the one it was made on; the SHA-256 of a signed body
(``X-Amz-Content-Sha256``); and what a key may do, as each may do everything in every bucket. It
also takes an upload without Content-Length.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

from support.cluster import binaries
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT

MODULE = Path(__file__).with_name("go")
ACCESS_KEY, SECRET_KEY = "wasession-tests", "the-secret-key-of-the-tests"
BUCKET = "backups"
PATIENCE = 20.0  # seconds
# How long listings are valid, in ns: never, as tests change files behind the server's back. After
# twice that time the server forgets them, and with 0 it does nothing else; this overflows to 292
# years. It is a whole number as a float, too, by which rclone reads it.
ALWAYS_STALE = -(2**62 + 2**20)


def program() -> Path:
    """Return the path of the program; the first build takes a minute and a half."""
    return binaries.of_module(MODULE, "rclone-s3", ".")


class S3Server:
    """A server on a port of its own, with one bucket whose objects outlive its restarts.

    Each object is a file of ``bucket``: tests may tear, replace and remove them.
    """

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        """``address`` is where clients find it; the server listens on all addresses of the host."""
        self.port = unused_port()
        self._address = address
        self.bucket = directory / "objects" / BUCKET
        self._log = directory / "s3.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self._address}:{self.port}"

    @property
    def url(self) -> str:
        """The bucket, as obstore's ``from_url`` takes it; a prefix may follow."""
        return f"s3://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """What obstore reads from its environment to use the bucket."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    async def start(self) -> None:
        self._spawn()
        async with asyncio.timeout(PATIENCE):
            while not await self._listens():  # noqa: ASYNC110 - it is about another process
                await asyncio.sleep(0.02)

    def _spawn(self) -> None:
        self.bucket.mkdir(parents=True, exist_ok=True)
        command = [str(program()), "serve", "s3", str(self.bucket.parent), "--config", ""]
        listen = "" if self._address != "127.0.0.1" else self._address
        command += ["--addr", f"{listen}:{self.port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        command += ["--dir-cache-time", f"{ALWAYS_STALE}ns"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*ENDS_WITH_PARENT, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def stop(self) -> None:
        """Shut it down: it answers what it has begun."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL, also while it is frozen."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it stand still: connections open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._signal(number)
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
