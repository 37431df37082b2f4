"""What browsers say of themselves, in headers and to the scripts of each context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

Context = Literal["document", "iframe", "worker", "shared_worker", "service_worker", "websocket"]
SCRIPT = Path(__file__).with_name("www") / "identity.js"
COOKIE = "wa_ul"  # by which the real page, too, tells one browser from another
BROWSERS = 200  # that are remembered at most


class Headers(BaseModel):
    """The headers of a request that say who asks; None where one is missing."""

    model_config = ConfigDict(frozen=True)

    user_agent: str | None
    accept_language: str | None
    sec_ch_ua: str | None
    sec_ch_ua_mobile: str | None
    sec_ch_ua_platform: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Headers:
        return cls(**{name: headers.get(name.replace("_", "-")) for name in cls.model_fields})


class Navigator(BaseModel):
    """What scripts read; workers have no ``webdriver``, insecure contexts no brands."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    user_agent: str
    language: str
    languages: tuple[str, ...]
    webdriver: bool | None
    brands: tuple[str, ...] | None
    full_versions: tuple[str, ...] | None
    platform: str | None
    platform_version: str | None
    locale: str
    timezone: str


class Sighting(BaseModel):
    """One thing that a browser has shown of itself: a request's headers, or a script's report."""

    model_config = ConfigDict(frozen=True)

    browser: str
    context: Context
    headers: Headers
    navigator: Navigator | None = None

    @property
    def automation(self) -> str | None:
        """How it gives an automated browser away."""
        if "Headless" in self.model_dump_json():
            return f"{self.context} says Headless"
        if self.navigator is not None and self.navigator.webdriver:
            return f"{self.context} says webdriver"
        return None


SIGHTINGS: TypeAdapter[list[Sighting]] = TypeAdapter(list[Sighting])


class Browsers:
    """All browsers, each with what it has shown, without repetitions."""

    def __init__(self) -> None:
        self._shown: dict[str, dict[Sighting, None]] = {}

    def note(
        self,
        request: web.Request,
        context: Context,
        navigator: Navigator | None = None,
        browser: str | None = None,
    ) -> None:
        """Note a request and what a script reports; ``browser`` is one without a cookie yet."""
        browser = browser or browser_of(request)
        if browser not in self._shown and len(self._shown) >= BROWSERS:
            del self._shown[next(iter(self._shown))]
        headers = Headers.of(request.headers)
        sighting = Sighting(browser=browser, context=context, headers=headers, navigator=navigator)
        self._shown.setdefault(browser, {})[sighting] = None

    def automation(self, browser: str) -> str | None:
        """How a browser gives itself away as automated; None if it does not."""
        if not browser:  # no cookie, so it may be anybody
            return None
        ways = (sighting.automation for sighting in self._shown.get(browser, {}))
        return next((way for way in ways if way is not None), None)

    def forget(self) -> None:
        self._shown.clear()

    def __iter__(self) -> Iterator[Sighting]:
        for shown in self._shown.values():
            yield from shown


def browser_of(request: web.Request) -> str:
    """The browser that a request comes from; empty when it has no cookie yet."""
    return request.cookies.get(COOKIE, "")


def script(context: Context) -> web.Response:
    """The script that tells what ``context`` says of itself; see ``www/identity.js``."""
    text = f"const CONTEXT = {context!r};\n{SCRIPT.read_text()}"
    headers = {"Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/javascript", headers=headers)
