"""The commands. Thin: each reads its arguments, does one thing and words the outcome."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click
from wasession_api.base import rfc3339
from wasession_api.names import ANNOTATION_RESTART
from wasession_api.v1alpha1 import Phase, Status

from wasession_cli import formatting as words
from wasession_cli.cluster import TABLE, Cluster, Expired, Manifest
from wasession_cli.exits import Exit, Failure, Forbidden, NotReady, Unreachable
from wasession_cli.options import (
    Duration,
    connection,
    in_cluster,
    interruptible,
    name_argument,
    output,
    text,
    timeout_option,
    wait_option,
)
from wasession_cli.pairing import Pairing, Terminal
from wasession_cli.session_pod import Busy

PROGRAM = "kubectl wasession"
TRY_AGAIN = 1.0  # seconds before a message that could not be sent is tried again
# Phases that no session leaves by itself.
STUCK = {
    Phase.SUSPENDED,
    Phase.LOGGED_OUT,
    Phase.TERMINATING,
    Phase.FAILED,
    Phase.CONFLICT,
    Phase.PASSKEY_REQUIRED,
}
EXIT_CODES = """
\b
Exit codes:
  0  done
  1  it went wrong
  2  the command line is wrong
  3  there is no such session, chat or message
  4  the session is not ready for it, or was not in time
  5  your kubeconfig's user may not do it
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=EXIT_CODES,
)
@connection
@click.version_option(package_name="wasession-cli", prog_name=PROGRAM)
def cli() -> None:
    """WhatsAppSessions: link phones, look at sessions, send messages.

    \b
    A first session:
      kubectl apply -f examples/whatsappsession.yaml     make it
      kubectl wasession qr sales-eu                      link the phone
      kubectl wasession send sales-eu 15550001111 Hello  use it
      kubectl wasession status sales-eu                  see how it is, and what to do

    Everything happens with the rights of your kubeconfig. To list sessions and read their status
    the role view is enough; to link, send and log out the role edit: it may read the session's
    Secret and open a port-forward to its pod.
    """


@cli.command(
    "list", epilog="\b\nExamples:\n  kubectl wasession list -A -o wide\n  kubectl wasession list -w"
)
@in_cluster
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on with each change, until Ctrl-C.")
@click.option(
    "-l", "--selector", metavar="LABELS", help="Only those with these labels, such as team=sales."
)
@output("wide", "json", "yaml", "name")
async def list_sessions(
    cluster: Cluster, everywhere: bool, watch: bool, selector: str | None, output: str | None
) -> None:
    """Sessions, as kubectl get wasessions shows them."""
    as_table = output in (None, "wide")
    shown = _Table(wide=output == "wide", namespaces=everywhere)
    while True:
        found = await cluster.sessions(
            everywhere=everywhere, selector=selector, accept=TABLE if as_table else ""
        )
        if as_table and not found.get("rows"):
            where = "" if everywhere else f" in {cluster.namespace} namespace"
            click.echo(f"No sessions found{where}.", err=True)
        elif as_table:
            shown.print(found)
        else:
            click.echo(text(found, str(output)))
        if not watch:
            return
        version = found["metadata"]["resourceVersion"]
        try:
            async for _, changed in cluster.changes(
                version, everywhere=everywhere, selector=selector, accept=TABLE if as_table else ""
            ):
                if as_table:
                    shown.print(changed)
                else:
                    click.echo(text(changed, str(output)))
        except Expired:
            continue  # the list says what the watch has missed


class _Table:
    """Prints rows under one header, with the widths of the first ones."""

    def __init__(self, *, wide: bool, namespaces: bool) -> None:
        self._options = {"wide": wide, "namespaces": namespaces}
        self._widths: list[int] = []
        self._columns: list[Manifest] = []

    def print(self, table: Manifest) -> None:
        """A Table of the API server; in a watch only the first one has the columns."""
        rows = []
        if not self._columns:
            self._columns = table["columnDefinitions"]
            rows.append(words.table_header(self._columns, **self._options))
        rows += words.table_rows(self._columns, table, **self._options)
        lines, self._widths = words.align(rows, self._widths)
        click.echo("\n".join(lines))


@cli.command(
    epilog="\b\nExamples:\n  kubectl wasession qr sales-eu\n  kubectl wasession qr sales-eu --timeout 5m"
)
@in_cluster
@name_argument
@click.option(
    "--timeout", type=Duration(), help="Give up after this time, such as 5m; never when left out."
)
async def qr(cluster: Cluster, name: str, timeout: float | None) -> None:
    """Link a phone, by QR or pairing code.

    The code changes on the screen as WhatsApp changes it, until a phone has used it. The command
    ends with 0 when the session is Ready, and with 4 when all rounds of codes were used up; given
    again it asks for new ones. A code is shown on terminals only, on a screen that leaves nothing
    behind: whoever has it can take the account.
    """
    if not sys.stdout.isatty():
        raise click.UsageError(
            "a code is shown on a terminal only: whoever has it can take the account"
        )
    colors = "NO_COLOR" not in os.environ
    try:
        async with asyncio.timeout(timeout):
            await cluster.session(name)
            with Terminal(_write, _terminal_size) as screen:
                end = await Pairing(cluster, name, screen, colors=colors).run()
    except TimeoutError:
        raise NotReady(
            f"no phone was linked in {timeout:.0f} s", f"go on with: {PROGRAM} qr {name}"
        ) from None
    if end.exit is not Exit.OK:
        raise NotReady(end.words)
    click.echo(words.plain(end.words))


def _write(characters: str) -> None:
    sys.stdout.write(characters)
    sys.stdout.flush()


def _terminal_size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines


@cli.command(
    epilog="\b\nExamples:\n  kubectl wasession status sales-eu\n  kubectl wasession status sales-eu -o json"
)
@in_cluster
@name_argument
@output("json", "yaml", "name")
async def status(cluster: Cluster, name: str, output: str | None) -> None:
    """How a session is, and what to do next."""
    session = await cluster.session(name)
    if output is not None:
        click.echo(text(session, output))
        return
    now = datetime.now(UTC)
    lines, _ = words.align(
        [[f"{word}:", said] for word, said in words.overview(session, now)], gap=2
    )
    found = words.status_of(session)
    if found.conditions:
        lines += ["", *words.align(words.conditions(found, now))[0]]
    try:
        events = await cluster.events(session["metadata"]["uid"])
    except Forbidden as error:
        lines += ["", f"History: {error}"]
    else:
        lines += ["", *words.align(words.history(events, now))[0]] if events else []
    click.echo("\n".join([*lines, "", f"What to do: {words.advice(name, found)}"]))


@cli.command(
    epilog="\b\nExamples:\n  kubectl wasession logs sales-eu -f --since 10m\n  kubectl wasession logs sales-eu -p"
)
@in_cluster
@name_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with each line, until Ctrl-C.")
@click.option("-p", "--previous", is_flag=True, help="Of the process before, for why it ended.")
@click.option("--since", type=Duration(), help="Only lines of this time, such as 10m.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="LINES", help="Only so many last lines."
)
async def logs(
    cluster: Cluster, name: str, follow: bool, previous: bool, since: float | None, tail: int | None
) -> None:
    """The log of a session's pod."""
    pod = (await cluster.session(name)).get("status", {}).get("podName")
    if not pod:
        raise NotReady(f"session {name} has no pod", f"{PROGRAM} status {name} says why")
    options = {"follow": "true" if follow else "", "previous": "true" if previous else ""}
    options |= {
        "sinceSeconds": f"{since:.0f}" if since else "",
        "tailLines": "" if tail is None else str(tail),
    }
    async for chunk in cluster.logs(
        pod, {option: value for option, value in options.items() if value}
    ):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


# --- changes of the resource ----------------------------------------------------------------------


@cli.command(epilog="\b\nExamples:\n  kubectl wasession restart sales-eu --wait")
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def restart(
    cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None
) -> None:
    """A new pod with the same login."""
    before = (await cluster.session(name)).get("status", {}).get("podUID")
    patch = {"metadata": {"annotations": {ANNOTATION_RESTART: rfc3339(datetime.now(UTC))}}}
    _say(await cluster.patch(name, patch), output, "restarts")
    if wait:
        await _until(
            cluster,
            name,
            timeout,
            lambda status: status.phase is Phase.READY and status.pod_uid != before,
        )


@cli.command(epilog="\b\nExamples:\n  kubectl wasession suspend sales-eu")
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def suspend(
    cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None
) -> None:
    """Stop a session and keep its login."""
    _say(await cluster.patch(name, {"spec": {"suspend": True}}), output, "is being suspended")
    if wait:
        # The phase comes first; the login is at rest once the pod is gone.
        await _until(
            cluster,
            name,
            timeout,
            lambda status: status.phase is Phase.SUSPENDED and status.pod_name is None,
        )


@cli.command(epilog="\b\nExamples:\n  kubectl wasession resume sales-eu --wait")
@in_cluster
@name_argument
@wait_option
@timeout_option
@output("json", "yaml", "name")
async def resume(
    cluster: Cluster, name: str, wait: bool, timeout: float, output: str | None
) -> None:
    """Start a suspended session again."""
    _say(await cluster.patch(name, {"spec": {"suspend": False}}), output, "starts")
    if wait:
        await _until(cluster, name, timeout, lambda status: status.phase is Phase.READY)


def _say(session: Manifest, output: str | None, what: str) -> None:
    click.echo(f"{text(session, 'name')} {what}" if output is None else text(session, output))


async def _until(
    cluster: Cluster, name: str, timeout: float, done: Callable[[Status], bool]
) -> None:
    """Waits until the session's status is as wanted; raises ``NotReady`` when that takes too long."""
    status = Status()
    try:
        async with asyncio.timeout(timeout):
            async for session in cluster.follow(name):
                status = words.status_of(session)
                if done(status):
                    return
    except TimeoutError:
        raise NotReady(
            f"after {timeout:.0f} s session {name} is {status.phase}", words.advice(name, status)
        ) from None


# --- through the session pod ----------------------------------------------------------------------


@cli.command(
    epilog="\b\nExamples:\n  kubectl wasession logout sales-eu\n  kubectl wasession logout sales-eu --yes"
)
@in_cluster
@name_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
async def logout(cluster: Cluster, name: str, yes: bool) -> None:
    """End the login with WhatsApp.

    The device goes from the phone's list. The session stays and shows a new QR; a phone has to be
    linked again. To stop a session and keep its login use suspend.
    """
    session = await cluster.session(name)
    account = words.status_of(session).account
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("a logout wants --yes where nobody can be asked")
        question = f"Log session {name} out of {account.id if account else 'WhatsApp'}? A phone has to be linked again then."
        with interruptible():
            agreed = click.confirm(question)
        if not agreed:
            raise Failure("nothing was done")
    async with cluster.pod(session) as pod:
        await pod.logout()
    click.echo(f"{text(session, 'name')} is logged out")


@cli.command(
    epilog="\b\nExamples:\n  kubectl wasession send sales-eu 15550001111 'Your order is ready.'"
    "\n  kubectl wasession send sales-eu 15550001111 'The invoice' --file invoice.pdf"
    "\n  date | kubectl wasession send sales-eu 120363041234567890@g.us -"
)
@in_cluster
@name_argument
@click.argument("to")
@click.argument("message", required=False, metavar="[TEXT]")
@click.option("--file", type=click.File("rb"), help="Send this file; TEXT is its caption.")
@click.option("--reply-to", metavar="MESSAGE-ID", help="As the answer to this message.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="The key that a try before this one has named; made when left out.",
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

    TO is a phone number with country code or a chat id. Prints the message's id. When the session
    or the connection fails meanwhile it is tried again until --timeout; each try has the same
    idempotency key, so the message is sent once at most. TEXT - reads the text from standard input.
    """
    with interruptible():
        body = sys.stdin.read() if message == "-" else message
    if not body and file is None:
        raise click.UsageError("TEXT or --file is needed")
    attachment = None if file is None else (Path(file.name).name, file.read())
    key = idempotency_key or str(uuid.uuid4())
    trouble: Failure | None = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                session = await cluster.session(name)
                _may_become_ready(name, words.status_of(session))
                try:
                    async with cluster.pod(session) as pod:
                        sent, replayed = await pod.send(to, body, attachment, reply_to, key)
                    break
                except (Busy, Unreachable) as error:
                    trouble = error
                    await asyncio.sleep(TRY_AGAIN)
    except TimeoutError:
        said = f": {trouble}" if trouble else ""
        raise NotReady(
            f"not known to be sent after {timeout:.0f} s{said}",
            f"to try again without sending it twice, add --idempotency-key {key}",
        ) from None
    if output is None:
        click.echo(f"{words.plain(sent.id)}{' (sent by an earlier try)' if replayed else ''}")
    else:
        click.echo(words.plain(sent.id) if output == "name" else text(sent.dump(), output))


def _may_become_ready(name: str, status: Status) -> None:
    if status.phase in STUCK:
        raise NotReady(f"session {name} is {status.phase}", words.advice(name, status))


# --- the program ----------------------------------------------------------------------------------


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; everything that goes wrong is said in words on standard error."""
    try:
        # click returns the exit code of --help and the like, and None from a command.
        return cli.main(arguments, prog_name=PROGRAM, standalone_mode=False) or Exit.OK
    except click.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except Failure as error:
        click.echo(words.plain(f"error: {error}"), err=True)
        if error.hint:
            click.echo(error.hint, err=True)
        return error.code


def main() -> None:
    # So that a terminal is put in order again before the process goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:]))
