"""A page for the bridge without a browser: it records calls and returns what a test prepares."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from playwright.async_api import Page
from wasession_pod.browser.bridge import Bridge


class FakePage:
    """``answers`` are values, exceptions or async functions, by the function of ``bridge.js``."""

    def __init__(self, *, observation_timeout: float = 10, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, list[Any]]] = []
        self.bridge = Bridge(lambda: cast(Page, self), observation_timeout)

    @property
    def functions(self) -> list[str]:
        """The names of the functions that were called."""
        return [name for name, _ in self.calls]

    async def evaluate(self, _: str, call: tuple[str, list[Any]]) -> Any:
        name, arguments = call
        self.calls.append((name, arguments))
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else answer

    async def evaluate_handle(self, _: str) -> FileInput:
        return FileInput(self)


class FileInput:
    """The input element whose file becomes the function's first argument."""

    def __init__(self, page: FakePage) -> None:
        self._page = page
        self._file: Path | None = None
        self.disposed = False

    def as_element(self) -> FileInput:
        return self

    async def set_input_files(self, file: Path) -> None:
        self._file = file

    async def evaluate(self, script: str, call: tuple[str, list[Any]]) -> Any:
        name, arguments = call
        return await self._page.evaluate(script, (name, [self._file, *arguments]))

    async def dispose(self) -> None:
        self.disposed = True
