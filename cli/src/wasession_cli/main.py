"""The commands. Thin: each reads its arguments, does one thing and prints the result."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click
from wasession_api.base import Observed, rfc3339
from wasession_api.kube.manifests import Manifest
from wasession_api.names import ANNOTATION_RESTART, ANNOTATION_WAKE
from wasession_api.session_pod.messages import SentMessage
from wasession_api.v1alpha1 import BackupMethod, Phase, Status

from wasession_cli import advice, formatting, private_file, rollouts
from wasession_cli.backups import (
    age_warning,
    make_backup,
    make_export,
    make_import,
    make_session,
    view_of_backup,
    view_of_import,
    view_of_restoration,
)
from wasession_cli.cluster import TABLE, Cluster, ResourceExpired
from wasession_cli.exits import (
    Conflict,
    Exit,
    Failure,
    Forbidden,
    Invalid,
    NotFound,
    NotReady,
    Unreachable,
)
from wasession_cli.options import (
    BACKUP_NAME,
    FOREIGN_BACKUP,
    MESSAGE_ID,
    NAMESPACE,
    NEW_NAME,
    RECIPIENT,
    SESSION_NAME,
    Duration,
    ImagePath,
    class_argument,
    connection,
    follow_options,
    in_cluster,
    interruptible,
    name_argument,
    output,
    text,
    timeout_option,
    wait_option,
)
from wasession_cli.pairing import End, ImageFile, Pairing, Progress, Terminal, Waiting
from wasession_cli.session_pod import Busy

PROGRAM = "kubectl wasession"
RETRY_DELAY = 1.0  # seconds between attempts to send a message
# Phases that a session does not leave without help.
STALLED = {
    Phase.SUSPENDED,
    Phase.HIBERNATED,
    Phase.LOGGED_OUT,
    Phase.TERMINATING,
    Phase.FAILED,
    Phase.CONFLICT,
    Phase.PASSKEY_REQUIRED,
}
EXIT_CODES = """
\b
Exit codes:
  0  success
  1  error
  2  invalid command line
  3  the session, backup, chat or message does not exist
  4  the session is not ready, or was not in time
  5  not allowed
"""


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n  ".join(("\b\nExamples:", *lines))


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=EXIT_CODES,
)
@connection
@click.version_option(package_name="wasession-cli", prog_name=PROGRAM)
def cli() -> None:
    """Manage WhatsAppSessions: link phones, show state, send messages, back up logins.

    \b
    Getting started:
      kubectl apply -f examples/whatsappsession.yaml     create a session
      kubectl wasession qr sales-eu                      link the phone
      kubectl wasession send sales-eu 15550001111 Hello  send a message
      kubectl wasession status sales-eu                  show its state, and what to do

    All commands use the permissions of your kubeconfig. The role view can list sessions and show
    their status; linking, sending and logging out require the role edit, which may read the
    session's Secret and open a port-forward to its pod.
    """


# --- state ----------------------------------------------------------------------------------------


@cli.command(
    "list", epilog=examples("kubectl wasession list -A -o wide", "kubectl wasession list -w")
)
@in_cluster
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Show each change until Ctrl-C.")
@click.option(
    "-l", "--selector", metavar="LABELS", help="Only sessions with these labels, such as team=a."
)
@output("wide", "json", "yaml", "name")
async def list_sessions(
    cluster: Cluster, everywhere: bool, watch: bool, selector: str | None, output: str | None
) -> None:
    """List sessions as kubectl get wasessions does."""
    as_table = output in (None, "wide")
    accept = TABLE if as_table else ""
    printer = _TablePrinter(wide=output == "wide", namespaces=everywhere)

    def show(result: Manifest) -> None:
        if as_table:
            printer.print(result)
        else:
            click.echo(text(result, str(output)))

    while True:
        result = await cluster.sessions(everywhere=everywhere, selector=selector, accept=accept)
        if as_table and not result.get("rows"):
            scope = "" if everywhere else f" in {cluster.namespace} namespace"
            click.echo(f"No sessions found{scope}.", err=True)
        else:
            show(result)
        if not watch:
            return
        version = result["metadata"]["resourceVersion"]
        try:
            async for _, changed in cluster.watch_sessions(
                version, everywhere=everywhere, selector=selector, accept=accept
            ):
                show(changed)
        except ResourceExpired:
            continue  # list again, for what the watch has missed


@cli.command(
    epilog=examples(
        "kubectl wasession classes",
        "kubectl explain whatsappsessionclass.spec    what a class decides",
    )
)
@in_cluster
@output("wide", "json", "yaml", "name")
async def classes(cluster: Cluster, output: str | None) -> None:
    """List the classes that a session can use, and which is the default.

    A class is to sessions what a StorageClass is to volumes: the platform team decides in it what
    session pods run, and which fields a session may set itself.
    """
    as_table = output in (None, "wide")
    result = await cluster.classes(accept=TABLE if as_table else "")
    if not as_table:
        click.echo(text(result, str(output)))
    elif not result.get("rows"):
        click.echo("No classes found: no session can start without one.", err=True)
    else:
        _TablePrinter(wide=output == "wide", namespaces=False).print(result)


class _TablePrinter:
    """Print rows under one header, with the column widths of the first ones."""

    def __init__(self, *, wide: bool, namespaces: bool) -> None:
        self._options = {"wide": wide, "namespaces": namespaces}
        self._widths: list[int] = []
        self._columns: list[Manifest] = []

    def print(self, table: Manifest) -> None:
        """Print a Table of the API server; in a watch only the first one has the columns."""
        rows = []
        if not self._columns:
            self._columns = table["columnDefinitions"]
            rows.append(formatting.table_header(self._columns, **self._options))
        rows += formatting.table_rows(self._columns, table, **self._options)
        lines, self._widths = formatting.align(rows, self._widths)
        click.echo("\n".join(lines))


@cli.command(
    epilog=examples(
        "kubectl wasession status sales-eu", "kubectl wasession status sales-eu -o json"
    )
)
@in_cluster
@name_argument
@output("json", "yaml", "name")
async def status(cluster: Cluster, name: str, output: str | None) -> None:
    """Show a session's state, and what to do next."""
    session = await cluster.session(name)
    if output is not None:
        click.echo(text(session, output))
        return
    now = datetime.now(UTC)
    summary = [[f"{label}:", value] for label, value in formatting.overview(session, now)]
    lines, _ = formatting.align(summary, gap=2)
    status = formatting.status_of(session)
    if status.conditions:
        lines += ["", *formatting.align(formatting.conditions(status, now))[0]]
    try:
        events = await cluster.events(session["metadata"]["uid"])
    except Forbidden as error:
        lines += ["", f"Events: {error}"]
    else:
        lines += ["", *formatting.align(formatting.history(events, now))[0]] if events else []
    click.echo("\n".join([*lines, "", f"What to do: {advice.next_step(name, status)}"]))


@cli.command(
    epilog=examples(
        "kubectl wasession logs sales-eu -f --since 10m", "kubectl wasession logs sales-eu -p"
    )
)
@in_cluster
@name_argument
@click.option("-f", "--follow", is_flag=True, help="Show each new line until Ctrl-C.")
@click.option("-p", "--previous", is_flag=True, help="The log of the previous container.")
@click.option("--since", type=Duration(), help="Only lines of this time, such as 10m.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="LINES", help="Only this many last lines."
)
async def logs(
    cluster: Cluster, name: str, follow: bool, previous: bool, since: float | None, tail: int | None
) -> None:
    """Show the log of a session's pod."""
    session = await cluster.session(name)
    pod = session.get("status", {}).get("podName")
    if not pod:
        raise NotReady(formatting.no_pod(session), f"{PROGRAM} status {name} shows its state")
    options = {
        "follow": "true" if follow else "",
        "previous": "true" if previous else "",
        "sinceSeconds": f"{since:.0f}" if since else "",
        "tailLines": "" if tail is None else str(tail),
    }
    chunks = cluster.logs(pod, {option: value for option, value in options.items() if value})
    async for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


# --- linking --------------------------------------------------------------------------------------


@cli.command(
    epilog=examples(
        "kubectl wasession qr sales-eu",
        "kubectl wasession qr sales-eu --timeout 5m",
        "kubectl wasession qr sales-eu --image qr.png",
    )
)
@in_cluster
@name_argument
@click.option("--timeout", type=Duration(), help="Give up after this time, such as 5m.")
@click.option(
    "--image",
    type=ImagePath(".png", ".svg"),
    metavar="FILE",
    help="Save the QR code as .png or .svg, in place of drawing it.",
)
async def qr(cluster: Cluster, name: str, timeout: float | None, image: Path | None) -> None:
    """Link a phone by QR code or pairing code.

    The code is renewed until a phone has used it. The command exits with 0 when the session is
    Ready, and with 4 when all rounds of codes have expired; run it again for new ones.

    Whoever has the code can take over the account. So it is shown on terminals only, on a screen
    that leaves nothing behind. A file of --image is readable by you alone, has each new code, and
    is removed at the end.
    """
    screen: Terminal | Progress
    file = None if image is None else ImageFile(image)
    if sys.stdout.isatty():
        colors = "NO_COLOR" not in os.environ
        screen = Terminal(name, _write, _terminal_size, colors=colors, image=image)
    elif image is not None:
        screen = Progress(_write, image)
    else:
        raise click.UsageError(
            "the code is shown on a terminal only, since it gives access to the account; "
            "to save it, add --image FILE"
        )
    try:
        async with asyncio.timeout(timeout):
            await cluster.session(name)
            with screen:
                end = await Pairing(cluster, name, screen, file).run()
    except TimeoutError:
        raise NotReady(
            f"no phone was linked within {timeout:.0f} s", f"to go on: {PROGRAM} qr {name}"
        ) from None
    if end.exit is not Exit.OK:
        raise NotReady(end.message)
    click.echo(formatting.plain(end.message))


def _write(characters: str) -> None:
    sys.stdout.write(characters)
    sys.stdout.flush()


def _terminal_size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines


# --- changes of the resource ----------------------------------------------------------------------


@cli.command(epilog=examples("kubectl wasession restart sales-eu --wait"))
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def restart(
    cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None
) -> None:
    """Replace the pod of a session; the login stays."""
    before = (await cluster.session(name)).get("status", {}).get("podUID")
    patch = {"metadata": {"annotations": {ANNOTATION_RESTART: rfc3339(datetime.now(UTC))}}}
    _print_change(await cluster.patch(name, patch), output, "restarting")
    if wait:
        await _wait_until(
            cluster,
            name,
            timeout,
            lambda status: status.phase is Phase.READY and status.pod_uid != before,
        )


@cli.command(epilog=examples("kubectl wasession suspend sales-eu"))
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def suspend(
    cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None
) -> None:
    """Stop a session; the login stays."""
    _print_change(await cluster.patch(name, {"spec": {"suspend": True}}), output, "suspending")
    if wait:
        # The volume is at rest only when the pod is gone, after the phase has changed.
        await _wait_until(
            cluster,
            name,
            timeout,
            lambda status: status.phase is Phase.SUSPENDED and status.pod_name is None,
        )


@cli.command(epilog=examples("kubectl wasession resume sales-eu --wait"))
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def resume(
    cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None
) -> None:
    """Start a suspended session again."""
    _print_change(await cluster.patch(name, {"spec": {"suspend": False}}), output, "starting")
    if wait:
        await _wait_until(cluster, name, timeout, lambda status: status.phase is Phase.READY)


@cli.command(epilog=examples("kubectl wasession wake sales-eu --wait"))
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def wake(cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None) -> None:
    """Wake a session that sleeps because nobody used it."""
    patch = {"metadata": {"annotations": {ANNOTATION_WAKE: rfc3339(datetime.now(UTC))}}}
    _print_change(await cluster.patch(name, patch), output, "waking")
    if wait:
        await _wait_until(cluster, name, timeout, lambda status: status.phase is Phase.READY)


def _print_change(session: Manifest, output: str | None, change: str) -> None:
    click.echo(f"{text(session, 'name')} {change}" if output is None else text(session, output))


async def _wait_until(
    cluster: Cluster, name: str, timeout: float, done: Callable[[Status], bool]
) -> None:
    """Return once the status is as wanted; raise ``NotReady`` after ``timeout`` seconds."""
    status = Status()
    try:
        async with asyncio.timeout(timeout):
            async for session in cluster.watch_session(name):
                status = formatting.status_of(session)
                if done(status):
                    return
    except TimeoutError:
        raise NotReady(
            f"session {name} is still {status.phase} after {timeout:.0f} s",
            advice.next_step(name, status),
        ) from None


# --- rollouts of classes --------------------------------------------------------------------------


@cli.group()
def rollout() -> None:
    """Show, pause, resume or undo the rollout of a class."""


@rollout.command("status", epilog=examples("kubectl wasession rollout status default"))
@in_cluster
@class_argument
@output("json", "yaml", "name")
async def rollout_status(cluster: Cluster, name: str, output: str | None) -> None:
    """Show how far the rollout of a class is, and what to do next."""
    session_class = await cluster.session_class(name)
    if output is not None:
        click.echo(text(session_class, output))
        return
    summary = rollouts.overview(session_class, datetime.now(UTC))
    lines, _ = formatting.align([[f"{label}:", value] for label, value in summary], gap=2)
    click.echo(formatting.plain("\n".join(lines)))


@rollout.command("pause", epilog=examples("kubectl wasession rollout pause default"))
@in_cluster
@class_argument
@output("json", "yaml", "name")
async def rollout_pause(cluster: Cluster, name: str, output: str | None) -> None:
    """Update no further session of a class; what has begun is finished."""
    rollouts.rollouts_of(await cluster.session_class(name))
    changed = await cluster.patch_class(name, {"spec": {"rollout": {"paused": True}}})
    _print_change(changed, output, "paused")


@rollout.command("resume", epilog=examples("kubectl wasession rollout resume default"))
@in_cluster
@class_argument
@output("json", "yaml", "name")
async def rollout_resume(cluster: Cluster, name: str, output: str | None) -> None:
    """Let a paused or halted rollout go on.

    The sessions that are not well at that moment do not halt it again.
    """
    patch = rollouts.resume_patch(await cluster.session_class(name))
    _print_change(await cluster.patch_class(name, patch), output, "resumed")


@rollout.command("undo", epilog=examples("kubectl wasession rollout undo default"))
@in_cluster
@class_argument
@output("json", "yaml", "name")
async def rollout_undo(cluster: Cluster, name: str, output: str | None) -> None:
    """Give a class back what it said of session pods before its latest rollout.

    Of a class that is kept in Git, revert the change there too.
    """
    session_class, revision = rollouts.undone(await cluster.session_class(name))
    changed = await cluster.replace_class(session_class)
    _print_change(changed, output, f"undone, back to revision {revision}")


# --- backups --------------------------------------------------------------------------------------


@cli.command(
    epilog=examples(
        "kubectl wasession backup sales-eu",
        "kubectl wasession backup sales-eu --name before-upgrade --no-wait",
        "kubectl wasession backup sales-eu --method VolumeSnapshot",
    )
)
@in_cluster
@name_argument
@click.option(
    "--name", "backup_name", type=NEW_NAME, help="Name of the backup; default: session and time."
)
@click.option(
    "--method",
    type=click.Choice([method.value for method in BackupMethod]),
    default=BackupMethod.ARCHIVE.value,
    show_default=True,
    help="An encrypted archive in the operator's store, or a VolumeSnapshot of the volume.",
)
@follow_options("10m")
@output("json", "yaml", "name")
async def backup(
    cluster: Cluster,
    name: str,
    backup_name: str | None,
    method: str,
    wait: bool,
    timeout: float,
    output: str | None,
) -> None:
    """Copy a session's login: to the operator's store, encrypted, or by a VolumeSnapshot.

    The session goes on meanwhile. Exits with 1 when the backup has failed, and with 4 when it is
    not completed within --timeout; the operator goes on with it.
    """
    session = await cluster.session(name)
    wanted = make_backup(session, backup_name, datetime.now(UTC), BackupMethod(method))
    created = await cluster.create_backup(wanted)
    _print_change(created, output, "created")
    if wait:
        changes = cluster.watch_backup(created["metadata"]["name"])
        await _follow(changes, view_of_backup, timeout)


@cli.command(
    epilog=examples("kubectl wasession backups", "kubectl wasession backups sales-eu -o name")
)
@in_cluster
@click.argument("name", type=SESSION_NAME, required=False)
@output("json", "yaml", "name")
async def backups(cluster: Cluster, name: str | None, output: str | None) -> None:
    """List backups, newest first: all of the namespace, or those of a session."""
    found = await cluster.backups()
    items = [item for item in found["items"] if name in (None, formatting.session_of_backup(item))]
    items.sort(key=formatting.age_of_backup, reverse=True)
    if output is not None:
        click.echo(text(found | {"items": items}, output))
    elif not items:
        click.echo(f"No backups found{f' of session {name}' if name else ''}.", err=True)
    else:
        rows = formatting.backups(items, datetime.now(UTC))
        click.echo("\n".join(formatting.align(rows)[0]))


@cli.command(
    epilog=examples(
        "kubectl wasession restore sales-eu-20260105-030000 --as sales-eu",
        "kubectl wasession restore sales-eu-20260105-030000 --as sales-eu --fenced",
    )
)
@in_cluster
@click.argument("backup", type=BACKUP_NAME)
@click.option("--as", "name", type=NEW_NAME, required=True, help="Name of the new session.")
@click.option("--class", "class_name", metavar="NAME", help="Its class; default: the default one.")
@click.option("--client-id", metavar="ID", help="Its clientId; default: that of the backup.")
@click.option("--owner", metavar="NAME", help="Its owner; default: that of the backup.")
@click.option(
    "--fenced",
    is_flag=True,
    help="You have made sure that no session that the operator cannot see runs with its login.",
)
@follow_options("5m")
@output("json", "yaml", "name")
async def restore(
    cluster: Cluster,
    backup: str,
    name: str,
    class_name: str | None,
    client_id: str | None,
    owner: str | None,
    fenced: bool,
    wait: bool,
    timeout: float,
    output: str | None,
) -> None:
    """Create a session that begins with a backup's login, without a new QR scan.

    It starts only when no other session of this cluster runs with the same login: suspend or delete
    that one. A backup has the login alone: other fields of the spec, such as webhooks, are those of
    the class, until you set them.
    """
    taken = await cluster.backup(backup)
    wanted = make_session(
        taken,
        name,
        class_name=class_name,
        client_id=client_id,
        owner=owner,
        fenced=fenced,
    )
    if (warning := age_warning(taken, datetime.now(UTC))) is not None:
        click.echo(f"warning: {warning}", err=True)
    _print_change(await cluster.create(wanted), output, "created")
    if wait:
        await _follow(cluster.watch_session(name), view_of_restoration, timeout)


@cli.command(
    epilog=examples(
        "kubectl wasession -n sales export sales-eu-20260105-030000 --to support",
        "kubectl wasession -n sales export sales-eu-20260105-030000 --to support --revoke",
    )
)
@in_cluster
@click.argument("backup", type=BACKUP_NAME)
@click.option(
    "--to", "importer", type=NAMESPACE, required=True, help="Namespace that may import it."
)
@click.option("--revoke", is_flag=True, help="Take that back; what it has imported stays.")
@output("json", "yaml", "name")
async def export(
    cluster: Cluster, backup: str, importer: str, revoke: bool, output: str | None
) -> None:
    """Let another namespace import a backup.

    The login is not moved by that: somebody there imports the backup, and restores it. Only an
    Archive can be exported.
    """
    present = await cluster.backup(backup)
    patch = make_export(present, importer, revoked=revoke)
    if patch is None:
        state = f"not exported to {importer}" if revoke else f"exported to {importer} already"
        _print_change(present, output, state)
        return
    change = f"{'no longer ' if revoke else ''}exported to {importer}"
    _print_change(await cluster.patch_backup(backup, patch), output, change)
    if not revoke:
        command = f"{PROGRAM} -n {importer} import {cluster.namespace}/{backup}"
        click.echo(f"To import it there: {command}", err=True)


@cli.command(
    "import",
    epilog=examples(
        "kubectl wasession -n support import sales/sales-eu-20260105-030000",
        "kubectl wasession -n support import sales/sales-eu-20260105-030000 --as-backup moved",
    ),
)
@in_cluster
@click.argument("source", metavar="NAMESPACE/BACKUP", type=FOREIGN_BACKUP)
@click.option("--as-backup", "name", type=NEW_NAME, help="Its name here; default: the same.")
@follow_options("5m")
@output("json", "yaml", "name")
async def import_backup(
    cluster: Cluster,
    source: tuple[str, str],
    name: str | None,
    wait: bool,
    timeout: float,
    output: str | None,
) -> None:
    """Copy another namespace's backup into this one, from which it can be restored.

    The operator copies the archive, when that namespace exports it to this one. The command can be
    repeated. Exits with 1 when the import has failed, and with 4 when it is not completed within
    --timeout; the operator goes on with it.
    """
    namespace, backup = source
    name = name or backup
    if namespace == cluster.namespace:
        hint = f"restore it: {PROGRAM} -n {namespace} restore {backup} --as SESSION"
        raise Invalid(f"backup {backup} is in the namespace {namespace} already", hint)
    wanted = make_import(namespace, backup, name)
    try:
        _print_change(await cluster.create_backup(wanted), output, "created")
    except Conflict:
        present = await cluster.backup(name)
        if present["spec"].get("importFrom") != wanted["spec"]["importFrom"]:
            raise
        _print_change(present, output, "unchanged")
    if wait:
        await _follow(cluster.watch_backup(name), view_of_import, timeout)


async def _follow(
    changes: AsyncIterator[Manifest], view_of: Callable[[Manifest], Waiting | End], timeout: float
) -> None:
    """Print each state to standard error until the end; raise ``Failure`` unless it is a good one.

    Raises ``NotReady`` after ``timeout`` seconds.
    """
    view: Waiting | End = Waiting("")
    try:
        async with asyncio.timeout(timeout):
            async for obj in changes:
                last, view = view, view_of(obj)
                if isinstance(view, End) and view.exit is not Exit.OK:
                    raise (NotReady if view.exit is Exit.NOT_READY else Failure)(view.message)
                if view != last:
                    click.echo(formatting.plain(view.message), err=True)
                if isinstance(view, End):
                    return
    except TimeoutError:
        raise NotReady(f"after {timeout:.0f} s, {view.message}") from None


# --- through the session pod ----------------------------------------------------------------------


@cli.command(
    epilog=examples("kubectl wasession logout sales-eu", "kubectl wasession logout sales-eu --yes")
)
@in_cluster
@name_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
async def logout(cluster: Cluster, name: str, yes: bool) -> None:
    """End the login with WhatsApp.

    The phone's list of linked devices loses the device. The session stays, and shows a new code: a
    phone has to be linked again. To stop a session but not its login, use suspend.
    """
    session = await cluster.session(name)
    account = formatting.status_of(session).account
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("without a terminal to confirm a logout, --yes is required")
        question = (
            f"Log session {name} out of {account.id if account else 'WhatsApp'}? "
            "A phone will have to be linked again."
        )
        with interruptible():
            confirmed = click.confirm(question)
        if not confirmed:
            raise Failure("cancelled, the session is still logged in")
    async with cluster.pod(session) as pod:
        await pod.logout()
    click.echo(f"{text(session, 'name')} logged out")


@cli.command(
    epilog=examples(
        "kubectl wasession send sales-eu 15550001111 'Your order is ready.'",
        "kubectl wasession send sales-eu 15550001111 'The invoice' --file invoice.pdf",
        "date | kubectl wasession send sales-eu 120363041234567890@g.us -",
    )
)
@in_cluster
@name_argument
@click.argument("to", type=RECIPIENT)
@click.argument("message", required=False, metavar="[TEXT]")
@click.option("--file", type=click.File("rb"), help="Send this file, with TEXT as its caption.")
@click.option(
    "--reply-to", type=MESSAGE_ID, metavar="MESSAGE-ID", help="Reply to this message of the chat."
)
@click.option(
    "--idempotency-key", metavar="KEY", help="Key of an earlier attempt; default: a new one."
)
@timeout_option
@output("json", "yaml", "name")
async def send(
    cluster: Cluster,
    name: str,
    to: str,
    message: str | None,
    file: BinaryIO | None,
    reply_to: str | None,
    idempotency_key: str | None,
    timeout: float,
    output: str | None,
) -> None:
    """Send a text or a file.

    TO is a phone number with country code, or a chat ID. A TEXT of - is read from standard input.
    Prints the message's ID. While the session or the connection fails, the command retries until
    --timeout, with one idempotency key: the message is sent at most once.
    """
    with interruptible():
        body = sys.stdin.read() if message == "-" else message
    if not (body and body.strip()) and file is None:
        raise click.UsageError("TEXT or --file is required")
    attachment = None if file is None else (Path(file.name).name, file.read())
    key = idempotency_key or str(uuid.uuid4())

    async def attempt() -> tuple[SentMessage, bool]:
        session = await cluster.session(name)
        status = formatting.status_of(session)
        if status.phase in STALLED:
            raise NotReady(f"session {name} is {status.phase}", advice.next_step(name, status))
        async with cluster.pod(session) as pod:
            return await pod.send(to, body, attachment, reply_to, key)

    sent, replayed = await _send(attempt, timeout, key)
    message_id = formatting.plain(sent.id)
    if output is None:
        click.echo(f"{message_id}{' (sent by an earlier attempt)' if replayed else ''}")
    else:
        click.echo(message_id if output == "name" else text(sent.dump(), output))


async def _send(
    attempt: Callable[[], Awaitable[tuple[SentMessage, bool]]], timeout: float, key: str
) -> tuple[SentMessage, bool]:
    """Repeat attempts that may be repeated, for ``timeout`` seconds."""
    last_error: Failure | None = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return await attempt()
                except (Busy, Unreachable) as error:
                    last_error = error
                    await asyncio.sleep(RETRY_DELAY)
    except TimeoutError:
        cause = f": {last_error}" if last_error else ""
        raise NotReady(
            f"no confirmation that it was sent after {timeout:.0f} s{cause}",
            f"to retry without sending it twice, add --idempotency-key {key}",
        ) from None


@cli.command(epilog=examples("kubectl wasession screenshot sales-eu --output page.png"))
@in_cluster
@name_argument
@click.option(
    "-o",
    "--output",
    "path",
    type=ImagePath(".png"),
    metavar="FILE",
    required=True,
    help="Save it in this .png file.",
)
async def screenshot(cluster: Cluster, name: str, path: Path) -> None:
    """Take a screenshot of a session's page.

    For what a person must look at, such as a dialog that nobody knows or a passkey. The session or
    its class must allow it: spec.browser.liveView. It shows chats and, while a phone is linked, the
    code that gives access to the account: the file is readable by you alone.
    """
    async with cluster.pod(await cluster.session(name)) as pod:
        try:
            picture = await pod.screenshot()
        except Forbidden as error:
            raise Forbidden(
                str(error), f"once it is on, start a pod with it: {PROGRAM} restart {name}"
            ) from None
    with private_file.replacing(path) as file:
        file.write(picture)
    click.echo(f"{path} shows the page of session {name}")


@cli.command(
    epilog=examples(
        "kubectl wasession deliveries sales-eu                     show how each is doing",
        "kubectl wasession deliveries sales-eu crm --dead-letters  what was given up",
        "kubectl wasession deliveries sales-eu crm --replay-dead   deliver that again",
        "kubectl wasession deliveries sales-eu crm --replay-after 5c1f0e7a9b3d4c62-1042",
    )
)
@in_cluster
@name_argument
@click.argument("destination", required=False)
@click.option("--dead-letters", "task", flag_value="dead", help="List the events given up.")
@click.option("--replay-dead", "task", flag_value="replay", help="Deliver those again.")
@click.option("--replay-after", metavar="EVENT-ID", help="Deliver all after an event again.")
@click.option("--pause", "task", flag_value="pause", help="Let its events wait.")
@click.option("--resume", "task", flag_value="resume", help="Deliver again, also after a 410.")
@output("json", "yaml")
async def deliveries(
    cluster: Cluster,
    name: str,
    destination: str | None,
    task: str | None,
    replay_after: str | None,
    output: str | None,
) -> None:
    """Show what waits for a session's webhooks and sinks, and deliver events again.

    Events that are delivered again have the same IDs: a receiver that knows them does nothing.
    """
    if task is not None and replay_after is not None:
        raise click.UsageError("--replay-after cannot be combined with another option")
    if destination is None and (task or replay_after):
        raise click.UsageError("DESTINATION is required with this option")
    now = datetime.now(UTC)
    async with cluster.pod(await cluster.session(name)) as pod:
        if destination is None or not (task or replay_after):
            found = [one for one in await pod.deliveries() if destination in (None, one.name)]
            if destination is not None and not found:
                raise NotFound(f"session {name} has no webhook or sink {destination}")
            _print_items(found, formatting.deliveries(found, now), output, "No webhooks and sinks.")
        elif task == "dead":
            letters = await pod.dead_letters(destination)
            rows = formatting.dead_letters(letters, now)
            _print_items(letters, rows, output, "No dead letters.")
        elif task in ("pause", "resume"):
            await pod.pause(destination, paused=task == "pause")
            click.echo(f"{destination} {task}d")
        elif replay_after is not None:
            await pod.replay(destination, replay_after)
            click.echo(f"{destination}: delivering everything after {replay_after} again")
        else:
            count = await pod.replay_dead_letters(destination)
            click.echo(f"{destination}: delivering {count} dead letters again")


def _print_items(
    items: Sequence[Observed], rows: list[list[str]], output: str | None, none: str
) -> None:
    if output is not None:
        click.echo(text({"items": [item.dump() for item in items]}, output))
    elif not items:
        click.echo(none, err=True)
    else:
        click.echo("\n".join(formatting.align(rows)[0]))


# --- the program ----------------------------------------------------------------------------------


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; print errors to standard error."""
    try:
        # click returns the exit code of --help and the like, and None from a command.
        return cli.main(arguments, prog_name=PROGRAM, standalone_mode=False) or Exit.OK
    except click.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except Failure as error:
        click.echo(formatting.plain(f"error: {error}"), err=True)
        if error.hint:
            click.echo(error.hint, err=True)
        return error.code


def main() -> None:
    """Run the command line of the process."""
    # Exit with an exception, so that the terminal is restored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:]))
