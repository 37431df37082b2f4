"""One tab of Chromium: its documents, its JavaScript and its end.

The session does not enable the Runtime domain: with it Chromium would keep every object that the
page logs to its console for a client that might look at it, and scripts could tell that there is
one.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from wasession_pod.browser.cdp import Disconnected, ProtocolError, Session

FILE_INPUT = "Object.assign(document.createElement('input'), {type: 'file'})"


class Tab:
    """A page target and its session. Methods raise ``ProtocolError``."""

    def __init__(self, session: Session, target_id: str) -> None:
        self.session, self.target_id = session, target_id
        self.url = "about:blank"  # of the top frame
        self.crashed = False
        self._loaded: asyncio.Future[None] | None = None
        self._committed = False  # the document that ``navigate`` opens
        session.on("Page.frameNavigated", self._on_document)
        session.on("Page.navigatedWithinDocument", self._on_navigated)
        session.on("Page.domContentEventFired", self._on_loaded)
        session.on("Page.javascriptDialogOpening", self._on_dialog)
        session.on("Inspector.targetCrashed", self._on_crash)

    @property
    def top_frame(self) -> str:
        """The ID of the top frame, which is that of the target."""
        return self.target_id

    async def enable(self) -> None:
        """Start to follow the tab's documents."""
        await asyncio.gather(
            self.session.call("Page.enable"), self.session.call("Inspector.enable")
        )

    async def navigate(self, url: str) -> None:
        """Open a document and wait until all of it is parsed."""
        self._loaded, self._committed = asyncio.get_running_loop().create_future(), False
        answer = await self.session.call("Page.navigate", url=url)
        if error := answer.get("errorText"):
            raise ProtocolError(f"{error} at {url}")
        await asyncio.wait({self._loaded, self.session.ended}, return_when=asyncio.FIRST_COMPLETED)
        if not self._loaded.done():
            raise Disconnected("the page has been closed")

    async def evaluate(self, function: str, *arguments: object) -> object:
        """Return the value of a function in the top frame, or of the promise that it returns.

        Arguments and values are JSON.
        """
        answer = await self.session.call(
            "Runtime.evaluate",
            expression=f"({function})(...{json.dumps(arguments)})",
            awaitPromise=True,
            returnByValue=True,
        )
        return _value(answer)

    async def evaluate_with_file(self, function: str, file: Path, *arguments: object) -> object:
        """Return the value of a function like ``evaluate``; its first argument is a ``File``.

        Chromium opens the file by its path, so its content does not pass through the protocol:
        16 MB take 20 ms instead of 4 s as base64. The page may read it at any time before the
        method returns.
        """
        given = f"...{json.dumps(arguments)}"
        created = await self.session.call("Runtime.evaluate", expression=FILE_INPUT)
        try:
            target = {"objectId": created["result"]["objectId"]}
        except (KeyError, TypeError):
            raise ProtocolError("the page has no document") from None
        try:
            await self.session.call("DOM.setFileInputFiles", files=[str(file)], **target)
            answer = await self.session.call(
                "Runtime.callFunctionOn",
                functionDeclaration=f"function() {{ return ({function})(this.files[0], {given}) }}",
                awaitPromise=True,
                returnByValue=True,
                **target,
            )
        finally:
            self.session.post("Runtime.releaseObject", **target)
        return _value(answer)

    async def close(self) -> None:
        """Close the tab, also if its page hangs, and wait until it is gone."""
        await self.session.connection.browser.call("Target.closeTarget", targetId=self.target_id)
        await asyncio.shield(self.session.ended)

    def _on_document(self, event: dict[str, Any]) -> None:
        frame = event["frame"]
        if frame["id"] == self.top_frame:
            self._committed = True
            self.url = str(frame["url"])

    def _on_navigated(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self.top_frame:
            self.url = str(event["url"])

    def _on_loaded(self, _: dict[str, Any]) -> None:
        if self._committed and self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(None)

    def _on_dialog(self, event: dict[str, Any]) -> None:
        """Let the page go on: it waits for an answer to its dialog."""
        leaving = event.get("type") == "beforeunload"
        self.session.post("Page.handleJavaScriptDialog", accept=leaving)

    def _on_crash(self, _: dict[str, Any]) -> None:
        self.crashed = True
        self.session.end()  # Chromium would answer calls once the tab has another document


def _value(answer: dict[str, Any]) -> object:
    """Return the value of an evaluation, None for undefined; raise the error that it has thrown."""
    thrown, result = answer.get("exceptionDetails"), answer.get("result")
    if thrown is not None:
        raise ProtocolError(_describe(thrown))
    return result.get("value") if isinstance(result, dict) else None


def _describe(thrown: Any) -> str:
    """Return what was thrown, as its ``toString()``, and the stack below it."""
    details = thrown if isinstance(thrown, dict) else {}
    error = details.get("exception")
    error = error if isinstance(error, dict) else {}
    return str(error.get("description") or error.get("value") or details.get("text"))
