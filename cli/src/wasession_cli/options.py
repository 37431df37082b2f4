"""What commands have in common: the connection to the cluster, argument types and output."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
import yaml
from click.shell_completion import CompletionItem
from pydantic import TypeAdapter, ValidationError
from wasession_api.base import parse_duration
from wasession_api.http.problem import describe_error
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.messages import MessageId, Recipient
from wasession_api.v1alpha1 import (
    BACKUP_KIND,
    BACKUP_SINGULAR,
    CLASS_KIND,
    CLASS_SINGULAR,
    GROUP,
    SINGULAR,
)
from wasession_api.v1alpha1.backup import Namespace
from wasession_api.v1alpha1.spec import Name

from wasession_cli.cluster import NAMES_ONLY, Cluster, Target
from wasession_cli.exits import Failure

COMPLETION_TIMEOUT = 3.0  # seconds
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A duration such as 30s, 2m or 1h30m, as seconds."""

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


class ObjectName(click.ParamType[str]):
    """The name of an object, also in the form of ``-o name``; completed from what ``read`` returns.

    ``kind`` is for people, such as session.
    """

    name = "name"

    def __init__(self, kind: str, read: Callable[[Cluster], Awaitable[Manifest]]) -> None:
        self._kind, self._read = kind, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value).rpartition("/")[2]
        if (
            not name
            or len(name) > 253
            or not all(c.isascii() and (c.isalnum() or c in "-.") for c in name)
        ):
            self.fail(f"{value!r} is not a {self._kind} name", param, ctx)
        return name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _complete(ctx.ensure_object(Target), self._read, incomplete)


class ForeignBackup(click.ParamType[tuple[str, str]]):
    """A backup of another namespace, as NAMESPACE/NAME."""

    name = "namespace/backup"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        namespace, slash, name = str(value).partition("/")
        if not slash:
            self.fail(f"{value!r} is not of the form NAMESPACE/BACKUP", param, ctx)
        return NAMESPACE.convert(namespace, param, ctx), NEW_NAME.convert(name, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        namespace, slash, name = incomplete.partition("/")
        if not slash:
            return []
        target = dataclasses.replace(ctx.ensure_object(Target), namespace=namespace)
        items = _complete(target, lambda cluster: cluster.backups(accept=NAMES_ONLY), name)
        return [CompletionItem(f"{namespace}/{item.value}") for item in items]


def _complete(
    target: Target, read: Callable[[Cluster], Awaitable[Manifest]], incomplete: str
) -> list[CompletionItem]:
    """Return the names of objects that begin with ``incomplete``; none without the cluster."""

    async def names() -> list[str]:
        async with asyncio.timeout(COMPLETION_TIMEOUT), Cluster.connect(target) as cluster:
            objects = await read(cluster)
            return [item["metadata"]["name"] for item in objects["items"]]

    try:
        found = asyncio.run(names())
    except (Failure, TimeoutError):
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


class Validated(click.ParamType[str]):
    """An argument of a type of the API, checked before anything is sent."""

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self._adapter = name, TypeAdapter[str](kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._adapter.validate_python(value)
        except ValidationError as error:
            self.fail(f"{value!r} {describe_error(error)}", param, ctx)
        return str(value)


class ImagePath(click.Path):
    """A file to save a picture in; ``suffixes`` are those of its format."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix.lower() not in self._suffixes:
            self.fail(f"{str(path)!r} must end with {' or '.join(self._suffixes)}", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"the directory {str(path.parent)!r} does not exist", param, ctx)
        return path


SESSION_NAME = ObjectName("session", lambda cluster: cluster.sessions(accept=NAMES_ONLY))
CLASS_NAME = ObjectName("class", lambda cluster: cluster.classes(accept=NAMES_ONLY))
BACKUP_NAME = ObjectName("backup", lambda cluster: cluster.backups(accept=NAMES_ONLY))
NEW_NAME = Validated("name", Name)
NAMESPACE = Validated("namespace", Namespace)
FOREIGN_BACKUP = ForeignBackup()
RECIPIENT = Validated("recipient", Recipient)
MESSAGE_ID = Validated("message", MessageId)


def _set_target(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Store an option, wherever it stands; the last one wins."""
    if value is not None and param.name is not None:
        setattr(ctx.ensure_object(Target), param.name, value)


def connection(command: F) -> F:
    """Add the options that select cluster and namespace."""
    option = functools.partial(click.option, expose_value=False, callback=_set_target)
    command = option(
        "--kubeconfig", metavar="FILE", help="Kubeconfig; default: KUBECONFIG, or ~/.kube/config."
    )(command)
    command = option(
        "--context", metavar="NAME", help="Context of the kubeconfig; default: its current one."
    )(command)
    return option("-n", "--namespace", metavar="NAME", help="Namespace; default: the context's.")(
        command
    )


def in_cluster(
    command: Callable[Concatenate[Cluster, P], Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Make a command of a coroutine function whose first argument is the cluster."""

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
    """Let Ctrl-C end blocking input in a coroutine at once.

    asyncio's own handler waits for the event loop.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def class_argument(command: F) -> F:
    return click.argument("name", metavar="CLASS", type=CLASS_NAME)(command)


def name_argument(command: F) -> F:
    return click.argument("name", type=SESSION_NAME)(command)


wait_option = click.option(
    "--wait", is_flag=True, help="Wait until it is done; exit with 4 after --timeout."
)
timeout_option = click.option(
    "--timeout", type=Duration(), default="2m", show_default=True, help="How long to wait."
)


def follow_options(timeout: str) -> Callable[[F], F]:
    """Add the options of a command that follows what it has begun."""

    def add(command: F) -> F:
        command = click.option(
            "--timeout",
            type=Duration(),
            default=timeout,
            show_default=True,
            help="How long to wait.",
        )(command)
        return click.option(
            "--wait/--no-wait", default=True, help="Follow it until its end; the default."
        )(command)

    return add


def output(*formats: str) -> Callable[[F], F]:
    return click.option(
        "-o", "--output", type=click.Choice(formats), help="Output format; default: plain text."
    )


def text(obj: Manifest, form: str) -> str:
    """Return an object or list in a format of ``-o``; as with kubectl, without managed fields."""
    items = obj.get("items", [obj])
    if form == "name":
        return "\n".join(_resource(item) for item in items)
    for item in items:
        item.get("metadata", {}).pop("managedFields", None)
    if form == "json":
        return json.dumps(obj, indent=4, ensure_ascii=False)
    return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True).rstrip()


def _resource(obj: Manifest) -> str:
    singulars = {CLASS_KIND: CLASS_SINGULAR, BACKUP_KIND: BACKUP_SINGULAR}
    singular = singulars.get(obj.get("kind", ""), SINGULAR)
    return f"{singular}.{GROUP}/{obj['metadata']['name']}"
