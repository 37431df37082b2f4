"""The page's HTML, in the order of the real one's, and as strict a content security policy."""

from __future__ import annotations

import secrets
from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from support.standin import generated
from support.standin.world import Behaviour, Missing, MissingMe

WWW = Path(__file__).with_name("www")
EARLY = (
    "loader",
    "models",
    "ids",
    "utilities",
    "credentials",
    "events",
    "contexts",
    "connection",
    "linking",
)
# wa-js waits until the number of modules has settled.
LATE = (
    "collections",
    "getters",
    "history",
    "messages",
    "changes",
    "media",
    "presence",
    "odd",
    "screen",
    "backend",
)


class Settings(BaseModel):
    """What the page's scripts must know of the server's behaviour."""

    model_config = ConfigDict(alias_generator=to_camel)

    legacy_cmd: bool
    legacy_msg_key: bool
    debug_global: bool
    service_worker: bool
    reload_ms: int | None
    confirm: str
    store_seconds: float
    missing: list[Missing]
    missing_me: list[MissingMe]


def response(behaviour: Behaviour, script_host: str) -> web.Response:
    """The page; its scripts come from ``script_host``, an origin, or ``/static``."""
    nonce = secrets.token_urlsafe(6)
    settings = Settings.model_validate(
        behaviour.model_dump(include=set(Settings.model_fields)), by_name=True
    )
    headers = {"Content-Security-Policy": policy(nonce, script_host), "Cache-Control": "no-store"}
    return web.Response(
        text=html(nonce, settings, behaviour, script_host),
        content_type="text/html",
        headers=headers,
    )


def frame() -> web.Response:
    """The document of the page's iframe."""
    text = '<!DOCTYPE html><meta charset="utf-8"><script src="/frame.js"></script>'
    return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})


def policy(nonce: str, script_host: str) -> str:
    host = script_host.removeprefix("/static")
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' {host} 'nonce-{nonce}' 'wasm-unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "connect-src 'self' ws: wss: https:",
            "img-src * data: blob:",
            "worker-src 'self' blob:",
        )
    )


def html(nonce: str, settings: Settings, behaviour: Behaviour, script_host: str) -> str:
    """Return the page: an inline script that queues early calls, then the bundles, some late.

    The calls are those of ``__d`` and ``requireLazy``.
    """
    early = "\n".join(
        f'<script src="{script_host}/{name}.js" defer nonce="{nonce}"></script>'
        for name in (*EARLY, *generated.scripts(behaviour.modules))
    )
    return f"""<!DOCTYPE html>
<html id="whatsapp-web" lang="en" dir="ltr">
<head>
<meta charset="utf-8">
<title>WhatsApp</title>
<script nonce="{nonce}">
  __d_stub = [];
  __d = function (id, dependencies, factory, special) {{
    __d_stub.push([id, dependencies, factory, special]);
  }};
  __rl_stub = [];
  requireLazy = function () {{ __rl_stub.push(arguments); }};
  self.__standin = {settings.model_dump_json(by_alias=True)};
</script>
<script src="/document.js" defer nonce="{nonce}"></script>
{early}
<script nonce="{nonce}">
  function late() {{
    for (const name of {list(LATE)}) {{
      const script = document.createElement('script');
      const src = '{script_host}/' + name + '.js';
      Object.assign(script, {{ src, nonce: '{nonce}', async: false }});
      document.head.appendChild(script);
    }}
  }}
  // That is after the deferred scripts.
  addEventListener('DOMContentLoaded', () => setTimeout(late, {behaviour.late_bundle_ms}));
</script>
</head>
<body><div id="app"></div></body>
</html>
"""
