"""Modules that nothing needs: the weight of the real page, whose thirteen thousand take 15 MB.

Their names do not begin with WA: wa-js would search all of them for each module that the real page
has and the stand-in lacks.
"""

from __future__ import annotations

import functools
import random

from aiohttp import web

PER_SCRIPT = 500  # modules of one script
REQUIRED = 0.6  # the share of modules that the page runs at its start
WORDS = ("chat", "message", "contact", "media", "sync", "key", "device", "group", "call", "status")


def scripts(modules: int) -> list[str]:
    """Return the names of the scripts that define this many modules."""
    return [f"generated-{number}" for number in range(-(-modules // PER_SCRIPT))]


def response(name: str) -> web.Response:
    """Return one of the scripts."""
    number = int(name.removeprefix("generated-").removesuffix(".js"))
    headers = {"Cache-Control": "max-age=31536000, immutable"}  # as the real page's scripts
    return web.Response(text=script(number), content_type="text/javascript", headers=headers)


@functools.lru_cache(maxsize=64)
def script(number: int) -> str:
    """Return a script that defines its modules, and requires most of them when it has loaded."""
    first = number * PER_SCRIPT
    names = [f"Generated{first + index}" for index in range(PER_SCRIPT)]
    parts = [_module(name, random.Random(first + index)) for index, name in enumerate(names)]  # noqa: S311
    required = [name for index, name in enumerate(names) if index < REQUIRED * PER_SCRIPT]
    parts.append(f"requireLazy({required}, () => {{}});")
    return "\n".join(parts)


def _module(name: str, chance: random.Random) -> str:
    """Return a module of about 1.1 KB: a table, and a class with methods."""
    table = ",".join(f"{_name(chance)}{index}:{chance.random():.12f}" for index in range(8))
    methods = "".join(
        f"{_name(chance)}{index}(a,b){{const c=this.state.get(a);"
        f"if(c===undefined||c.{_name(chance)}!==b)throw new Error('{name}: {_name(chance)}');"
        f"this.state.set(a,{{...c,{_name(chance)}:b}});return[...this.state.keys()].sort()}}"
        for index in range(4)
    )
    return (
        f"__d('{name}',[],(function(g,r,d,n,l,m,e){{const T={{{table}}};"
        f"class C{{constructor(){{this.state=new Map(Object.entries(T));this.log=[]}}{methods}}}"
        "e.table=T;e.Model=C;e.instance=new C()}),32);"
    )


def _name(chance: random.Random) -> str:
    return chance.choice(WORDS) + chance.choice(WORDS).title()
