"""A page for the bridge without a browser: it records calls and returns what a test prepares."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from wasession_pod.browser.bridge import Bridge
from wasession_pod.browser.tab import Tab


class FakePage:
    """``answers`` are values, exceptions or async functions, by the function of ``bridge.js``."""

    def __init__(self, *, observation_timeout: float = 10, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, list[Any]]] = []
        self.bridge = Bridge(lambda: cast(Tab, self), observation_timeout)

    @property
    def functions(self) -> list[str]:
        """The names of the functions that were called."""
        return [name for name, _ in self.calls]

    async def evaluate(self, _: str, name: str, arguments: list[Any]) -> Any:
        self.calls.append((name, arguments))
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else answer

    async def evaluate_with_file(
        self, function: str, file: Path, name: str, arguments: list[Any]
    ) -> Any:
        return await self.evaluate(function, name, [file, *arguments])
