"""A program in a pseudo-terminal, as a person sees it: the screen, and the QR on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import pyte
import zxingcpp

T = TypeVar("T")
PATIENCE = 60.0  # seconds
PIXELS = 3  # width of a QR's module in the picture
UPPER, LOWER = "▀█", "▄█"
BLACK = "000000"


class Cell(NamedTuple):
    """A character with its colours as six hexadecimal digits, empty for the terminal's own."""

    text: str
    foreground: str
    background: str

    def half(self, blocks: str) -> str:
        """Return the colour of the half that these block characters fill: UPPER or LOWER."""
        return self.foreground if self.text in blocks else self.background


class Terminal:
    """Runs ``command`` in a pseudo-terminal; a context manager that kills it at its end."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        columns: int = 100,
        lines: int = 50,
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._drawn = threading.Condition()
        self._ended = False
        self.output = b""  # all output, with its control sequences
        self._terminal, inner = pty.openpty()
        self.resize(columns, lines)
        # The size comes from the terminal alone: these variables would hide it.
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            env={**inherited, "TERM": "xterm-256color", **environment},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._terminal)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        with self._drawn:
            self._screen.resize(lines, columns)

    def type(self, characters: str) -> None:
        """Type on the keyboard: ``\\x03`` is Ctrl-C."""
        os.write(self._terminal, characters.encode())

    def interrupt(self) -> None:
        """Type Ctrl-C as often as it takes.

        Python does not notice a signal between its last check for signals and the system call that
        waits for input.
        """
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self.type("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)

    def text(self) -> str:
        with self._drawn:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def cells(self) -> list[list[Cell]]:
        """Return the screen, line by line."""
        with self._drawn:
            return [
                [
                    Cell(cell.data, _colour(cell.fg), _colour(cell.bg))
                    for cell in (self._screen.buffer[y][x] for x in range(self._screen.columns))
                ]
                for y in range(self._screen.lines)
            ]

    def qr(self) -> str | None:
        """Return what a camera reads from the screen."""
        picture = []
        for row in self.cells():
            for half in (UPPER, LOWER):
                # The default background counts as white, wherever the QR is on the screen.
                dark = [cell.half(half) == BLACK for cell in row]
                picture += [
                    bytes(0 if module else 255 for module in dark for _ in range(PIXELS))
                ] * PIXELS
        pixels = memoryview(b"".join(picture)).cast("B", shape=[len(picture), len(picture[0])])
        barcodes = zxingcpp.read_barcodes(pixels)
        return barcodes[0].text if barcodes else None

    def wait_for(
        self, look: Callable[[Terminal], T | None], what: str, patience: float = PATIENCE
    ) -> T:
        """Return the first true value of ``look``, evaluated whenever the screen changes.

        Raises ``AssertionError`` with the screen after ``patience`` seconds.
        """
        end = time.monotonic() + patience
        with self._drawn:
            while True:
                value = look(self)
                if value:
                    return value
                more = not self._ended and self._drawn.wait(end - time.monotonic())
                assert more, f"{what} was not shown; the screen:\n{self.text()}"

    def wait_text(self, text: str) -> None:
        self.wait_for(lambda terminal: text in terminal.text(), repr(text))

    def wait_qr(self, code: str) -> None:
        self.wait_for(lambda terminal: terminal.qr() == code, "the QR")

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end of the program and of its output; return its exit code."""
        code = self.process.wait(patience)
        with self._drawn:
            assert self._drawn.wait_for(lambda: self._ended, PATIENCE)
        return code

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._terminal, 65536)
            except OSError:  # the program's end of the terminal is closed
                chunk = b""
            with self._drawn:
                self.output += chunk
                self._ended = not chunk
                if chunk:
                    self._stream.feed(chunk)
                self._drawn.notify_all()
            if not chunk:
                return


def _colour(name: str) -> str:
    return "" if name == "default" else name
