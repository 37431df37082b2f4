"""What the commands have in common: how they reach the cluster, types of arguments, output."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
import yaml
from click.shell_completion import CompletionItem
from wasession_api.base import parse_duration
from wasession_api.v1alpha1 import GROUP, SINGULAR

from wasession_cli.cluster import NAMES_ONLY, Cluster, Manifest, Target
from wasession_cli.exits import Failure

COMPLETION_TAKES = 3.0  # seconds at most for names from the cluster
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A length of time such as 30s, 2m or 1h30m; a float of seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value).total_seconds()
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SessionName(click.ParamType[str]):
    """The name of a session, also as kubectl's ``-o name`` writes it; completed from the cluster."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value).rpartition("/")[2]
        if (
            not name
            or len(name) > 253
            or not all(c.isascii() and (c.isalnum() or c in "-.") for c in name)
        ):
            self.fail(f"{value!r} is not the name of a session", param, ctx)
        return name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        async def names() -> list[str]:
            async with (
                asyncio.timeout(COMPLETION_TAKES),
                Cluster.connect(ctx.ensure_object(Target)) as cluster,
            ):
                found = await cluster.sessions(accept=NAMES_ONLY)
                return [item["metadata"]["name"] for item in found["items"]]

        try:
            return [
                CompletionItem(name) for name in asyncio.run(names()) if name.startswith(incomplete)
            ]
        except (Failure, TimeoutError):
            return []


def _into_target(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Notes an option wherever it stands; the last one wins."""
    if value is not None and param.name is not None:
        setattr(ctx.ensure_object(Target), param.name, value)


def connection(command: F) -> F:
    """The options that say which cluster and namespace are meant."""
    option = functools.partial(click.option, expose_value=False, callback=_into_target)
    command = option(
        "--kubeconfig", metavar="FILE", help="Kubeconfig; else KUBECONFIG, else ~/.kube/config."
    )(command)
    command = option(
        "--context",
        metavar="NAME",
        help="Context of the kubeconfig; its current one when left out.",
    )(command)
    return option(
        "-n", "--namespace", metavar="NAME", help="Namespace; the context's when left out."
    )(command)


def in_cluster(
    command: Callable[Concatenate[Cluster, P], Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Makes a command of a coroutine that wants the cluster first."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def connected() -> None:
            async with Cluster.connect(
                click.get_current_context().ensure_object(Target)
            ) as cluster:
                await command(cluster, *args, **kwargs)

        asyncio.run(connected())

    return connection(run)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """For reading from the user within a coroutine: Ctrl-C ends it at once, where asyncio's own handler waits for the loop."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def name_argument(command: F) -> F:
    return click.argument("name", type=SessionName())(command)


wait_option = click.option(
    "--wait", is_flag=True, help="Return when it is done, or with 4 after --timeout."
)
timeout_option = click.option(
    "--timeout", type=Duration(), default="2m", show_default=True, help="How long to wait."
)


def output(*formats: str) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        help="Form of the answer; words when left out.",
    )


def text(found: Manifest, form: str) -> str:
    """An object in the form that ``-o`` asks for, without its managed fields, as kubectl does it."""
    if form == "name":
        return "\n".join(_resource(item) for item in found.get("items", [found]))
    for item in found.get("items", [found]):
        item.get("metadata", {}).pop("managedFields", None)
    if form == "json":
        return json.dumps(found, indent=4, ensure_ascii=False)
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True).rstrip()


def _resource(session: Manifest) -> str:
    return f"{SINGULAR}.{GROUP}/{session['metadata']['name']}"
