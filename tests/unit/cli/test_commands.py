"""The commands against an API server and a session pod, in good and bad conditions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from wasession_api.base import rfc3339
from wasession_api.v1alpha1 import API_VERSION, CLASS_KIND
from wasession_cli.backups import make_export
from wasession_cli.completion import complete
from wasession_cli.exits import Exit

from .conftest import (
    LIST,
    NAMESPACE,
    POD_TOKEN,
    Manifest,
    Pod,
    Result,
    Server,
    make_backup,
    make_session,
    problem,
)

Command = Callable[..., Result]
FRIEND = "15550001111"


# --- list -----------------------------------------------------------------------------------------


@pytest.fixture
def two(server: Server) -> Server:
    server.put(make_session("sales", sessionValid=True))
    server.put(make_session("support", "Suspended", suspend=True, sessionValid=False))
    return server


def test_list_shows_the_columns_of_kubectl_get(two: Server, command: Command) -> None:
    assert command("list").out.splitlines() == [
        "NAME      PHASE       VALID",
        "sales     Ready       true",
        "support   Suspended   false",
    ]


def test_list_wide_and_of_all_namespaces(two: Server, command: Command) -> None:
    assert command("list", "-A", "-o", "wide").out.splitlines() == [
        "NAMESPACE   NAME      PHASE       VALID   POD",
        "team        sales     Ready       true    wasession-sales",
        "team        support   Suspended   false",
    ]
    assert two.calls[-1].path == "/apis/wasession.dev/v1alpha1/whatsappsessions"


def test_list_in_other_forms(two: Server, command: Command) -> None:
    assert command("list", "-o", "name").out.splitlines() == [
        "whatsappsession.wasession.dev/sales",
        "whatsappsession.wasession.dev/support",
    ]
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        found = read(command("list", "-o", form).out)
        assert [item["metadata"]["name"] for item in found["items"]] == ["sales", "support"]
        assert "managedFields" not in found["items"][0]["metadata"]


def test_list_passes_the_selector_on(two: Server, command: Command) -> None:
    assert command("list", "-l", "team=sales").code == Exit.OK
    assert two.calls[-1].query == {"labelSelector": "team=sales"}


def test_list_of_nothing(server: Server, command: Command) -> None:
    assert command("list") == (Exit.OK, "", "No sessions found in team namespace.\n")
    assert command("list", "-A").err == "No sessions found.\n"


def test_list_goes_on_with_each_change(two: Server) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "wasession_cli", "list", "-w"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Of a test run in the background the shell may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert [process.stdout.readline().split()[0] for _ in range(3)] == ["NAME", "sales", "support"]
    two.put(make_session("sales", "Reconnecting", sessionValid=True))
    assert process.stdout.readline() == "sales     Reconnecting   true\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in errors


def test_classes_are_listed(server: Server, command: Command) -> None:
    server.classes = [
        {"apiVersion": API_VERSION, "kind": CLASS_KIND, "metadata": {"name": name}, "spec": {}}
        for name in ("default", "large")
    ]
    assert command("classes").out.split() == ["NAME", "default", "large"]
    assert command("classes", "-o", "name").out.split() == [
        "whatsappsessionclass.wasession.dev/default",
        "whatsappsessionclass.wasession.dev/large",
    ]


def test_without_classes_no_session_can_start(server: Server, command: Command) -> None:
    assert command("classes") == (
        Exit.OK,
        "",
        "No classes found: no session can start without one.\n",
    )


# --- status and logs ------------------------------------------------------------------------------


def test_status_says_how_it_is_what_happened_and_what_to_do(
    server: Server, command: Command
) -> None:
    account = {"id": "15551234567@c.us", "pushName": "Sales", "platform": "android"}
    lost = {"at": "2026-11-24T09:00:00Z", "kind": "Connection", "reason": "TIMEOUT"}
    restarts = {"count": 2, "last": "2026-11-24T09:00:00Z", "reason": "OOMKilled"}
    server.put(
        make_session(
            "sales",
            account=account,
            sessionValid=True,
            restorations=2,
            lastDisconnect=lost,
            restarts=restarts,
        )
    )
    server.events = [
        {
            "type": "Normal",
            "reason": "Restored",
            "message": "The session is restored.",
            "eventTime": lost["at"],
        }
    ]
    result = command("status", "sales")
    assert result.code == Exit.OK
    for words in (
        "sales in namespace team",
        "user-42",
        "15551234567@c.us (Sales, android)",
        "valid, restored 2 times",
        "Connection: TIMEOUT",
        "OOMKilled",
        "wasession-sales",
        "PodReady",
        "The session is restored.",
        "What to do: Nothing, it is ready.",
    ):
        assert words in result.out
    assert server.calls[-1].query == {"fieldSelector": "involvedObject.uid=uid-sales"}


def test_status_of_a_session_that_nobody_has_looked_at_yet(
    server: Server, command: Command
) -> None:
    session = make_session("sales")
    del session["status"]
    server.put(session)
    result = command("status", "sales")
    assert result.code == Exit.OK
    assert "Pending" in result.out


def test_status_without_the_right_to_read_events(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    server.forbidden.add("events")
    result = command("status", "sales")
    assert result.code == Exit.OK
    assert "cannot do that" in result.out


def test_status_in_other_forms(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    assert json.loads(command("status", "sales", "-o", "json").out)["status"]["phase"] == "Ready"
    assert (
        yaml.safe_load(command("status", "sales", "-o", "yaml").out)["status"]["phase"] == "Ready"
    )
    assert (
        command("status", "whatsappsession.wasession.dev/sales", "-o", "name").out
        == "whatsappsession.wasession.dev/sales\n"
    )


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ([], {}),
        (["-f"], {"follow": "true"}),
        (["--previous", "--tail", "0"], {"previous": "true", "tailLines": "0"}),
        (["--since", "1h30m"], {"sinceSeconds": "5400"}),
    ],
)
def test_logs(
    server: Server, command: Command, arguments: list[str], query: dict[str, str]
) -> None:
    server.put(make_session("sales"))
    server.log = '{"message": "started ✓"}\n'.encode()
    assert command("logs", "sales", *arguments).out == server.log.decode()
    assert server.calls[-1].path == "/api/v1/namespaces/team/pods/wasession-sales/log"
    assert server.calls[-1].query == {"container": "session", **query}


# --- restart, suspend, resume ---------------------------------------------------------------------


def test_restart_sets_the_annotation(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    assert command("restart", "sales").out == "whatsappsession.wasession.dev/sales restarting\n"
    assert server.sessions["sales"]["metadata"]["annotations"]["wasession.dev/restart"].startswith(
        "20"
    )


def test_wake_sets_an_annotation_that_is_new_each_time(server: Server, command: Command) -> None:
    server.put(make_session("sales", "Hibernated"))
    assert command("wake", "sales").out == "whatsappsession.wasession.dev/sales waking\n"
    [call] = [call for call in server.calls if call.method == "PATCH"]
    assert call.body["metadata"]["annotations"]["wasession.dev/wake"].startswith("20")
    assert call.body.keys() == {"metadata"}


@pytest.mark.parametrize(
    ("verb", "before", "after"), [("suspend", False, True), ("resume", True, False)]
)
def test_suspend_and_resume_change_the_spec_alone(
    server: Server, command: Command, verb: str, before: bool, after: bool
) -> None:
    server.put(make_session("sales", suspend=before))
    result = command(verb, "sales", "-o", "json")
    assert json.loads(result.out)["spec"]["suspend"] is after
    [call] = [call for call in server.calls if call.method == "PATCH"]
    assert call.body == {"spec": {"suspend": after}}
    assert call.query == {"fieldManager": "kubectl-wasession"}


@pytest.mark.parametrize(
    ("command", "on_the_way", "done"),
    [
        (
            "restart",
            make_session("sales", "Restoring", podUID="second"),
            make_session("sales", podUID="second"),
        ),
        (
            "suspend",
            make_session("sales", "Suspended", podName="wasession-sales"),
            make_session("sales", "Suspended"),
        ),
        ("resume", make_session("sales", "Restoring"), make_session("sales")),
        ("wake", make_session("sales", "Hibernated"), make_session("sales")),
    ],
)
def test_wait_returns_when_it_is_done(
    server: Server, command: str, on_the_way: Manifest, done: Manifest
) -> None:
    server.put(
        make_session("sales", "Ready" if command != "resume" else "Suspended", podUID="first")
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "wasession_cli", command, "sales", "--wait"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    server.put(on_the_way)
    server.put(done)
    assert process.wait(60) == Exit.OK


@pytest.mark.parametrize(
    ("verb", "session", "words"),
    [
        ("resume", make_session("sales", "Authenticating"), "kubectl wasession qr sales"),
        (
            "suspend",
            make_session("sales", "Suspended", podName="wasession-sales"),
            "session sales is still Suspended",
        ),
        ("restart", make_session("sales", podUID="first"), "session sales is still Ready"),
    ],
)
def test_wait_gives_up_and_says_what_to_do(
    server: Server, command: Command, verb: str, session: Manifest, words: str
) -> None:
    server.put(session)
    result = command(verb, "sales", "--wait", "--timeout", "1s")
    assert result.code == Exit.NOT_READY
    assert words in result.err


# --- logout ---------------------------------------------------------------------------------------


def test_logout(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    assert command("logout", "sales", "--yes").code == Exit.OK
    assert [(call.method, call.path) for call in server.pod.calls] == [("POST", "/v1/logout")]


def test_logout_asks_nobody_where_nobody_is(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    result = command("logout", "sales")
    assert result.code == Exit.USAGE
    assert "--yes" in result.err
    assert server.pod.calls == []


def test_logout_that_whatsapp_does_not_confirm(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    server.pod.faults["/v1/logout"] = [
        lambda: problem(504, "WhatsApp has not confirmed the logout; the login was kept")
    ]
    result = command("logout", "sales", "--yes")
    assert result.code == Exit.NOT_READY
    assert "the login was kept" in result.err


def test_what_others_have_worded_does_nothing_to_the_terminal(
    server: Server, command: Command
) -> None:
    account = {"id": "15551234567@c.us", "pushName": "Mallory\x1b]0;mine\x07\x9b2J\nPhase:  Ready"}
    server.put(make_session("sales", "Reconnecting", account=account))
    result = command("status", "sales")
    assert "Mallory\ufffd]0;mine\ufffd\ufffd2J Phase:  Ready" in result.out
    server.pod.faults["/v1/logout"] = [lambda: problem(500, "\x1b[2Jnot now")]
    assert command("logout", "sales", "--yes").err == "error: \ufffd[2Jnot now\n"


# --- the page -------------------------------------------------------------------------------------


def test_screenshot(server: Server, command: Command, tmp_path: Path) -> None:
    server.put(make_session("sales", "PasskeyRequired"))
    path = tmp_path / "page.png"
    path.write_bytes(b"an earlier one")
    path.chmod(0o644)
    result = command("screenshot", "sales", "--output", str(path))
    assert (result.code, result.out) == (Exit.OK, f"{path} shows the page of session sales\n")
    assert path.read_bytes() == server.pod.screenshot
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.glob("*.png")] == [path]


@pytest.mark.parametrize("output", [[], ["-o", "page.jpg"], ["-o", "nowhere/page.png"]])
def test_screenshot_without_a_file(server: Server, command: Command, output: list[str]) -> None:
    server.put(make_session("sales"))
    assert command("screenshot", "sales", *output).code == Exit.USAGE
    assert server.pod.calls == []


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, Exit.FORBIDDEN, "kubectl wasession restart sales"),
        (502, Exit.ERROR, ""),
        (503, Exit.NOT_READY, ""),
    ],
)
def test_screenshot_that_there_is_not(
    server: Server, command: Command, tmp_path: Path, status: int, code: Exit, hint: str
) -> None:
    server.put(make_session("sales"))
    server.pod.faults["/v1/screenshot"] = [lambda: problem(status, "spec.browser.liveView is off")]
    result = command("screenshot", "sales", "-o", str(tmp_path / "page.png"))
    assert result.code == code
    assert "spec.browser.liveView is off" in result.err
    assert hint in result.err
    assert list(tmp_path.glob("*.png")) == []


def test_a_pod_that_sends_no_picture(server: Server, command: Command, tmp_path: Path) -> None:
    server.put(make_session("sales"))
    server.pod.screenshot = b"<script>"
    result = command("screenshot", "sales", "-o", str(tmp_path / "page.png"))
    assert (result.code, result.err) == (Exit.ERROR, "error: the session pod has sent no picture\n")
    assert list(tmp_path.glob("*.png")) == []


# --- deliveries -----------------------------------------------------------------------------------

FAILING = {
    "name": "crm", "place": "https://crm.example.com", "state": "Failing",
    "since": "2026-11-24T10:00:00Z", "pending": 12,
    "oldest": "2026-11-24T10:00:00Z", "error": "HTTP 500", "deadLetters": 1,
}  # fmt: skip


def test_deliveries(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    assert command("deliveries", "sales").err == "No webhooks and sinks.\n"
    server.pod.deliveries.append(FAILING)
    header, row = command("deliveries", "sales").out.splitlines()
    assert header.split() == ["NAME", "TO", "STATE", "FOR", "WAITING", "OLDEST", "DEAD", "ERROR"]
    assert row.split()[:3] == ["crm", "https://crm.example.com", "Failing"]
    assert row.endswith("HTTP 500")
    assert json.loads(command("deliveries", "sales", "crm", "-o", "json").out) == {
        "items": [FAILING]
    }
    result = command("deliveries", "sales", "other")
    assert (result.code, result.err) == (
        Exit.NOT_FOUND, "error: session sales has no webhook or sink other\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "path", "body", "words"),
    [
        (["--pause"], "pause", None, "crm paused"),
        (["--resume"], "resume", None, "crm resumed"),
        (["--replay-dead"], "dead-letters/replay", None, "delivering 3 dead letters again"),
        (
            ["--replay-after", "5c1f0e7a9b3d4c62-7"],
            "replay",
            {"after": "5c1f0e7a9b3d4c62-7"},
            "delivering everything after 5c1f0e7a9b3d4c62-7 again",
        ),
    ],
)
def test_what_to_do_with_a_delivery(
    server: Server,
    command: Command,
    options: list[str],
    path: str,
    body: dict[str, Any] | None,
    words: str,
) -> None:
    server.put(make_session("sales"))
    result = command("deliveries", "sales", "crm", *options)
    assert result.code == Exit.OK
    assert words in result.out
    [call] = server.pod.calls
    assert (call.method, call.path) == ("POST", f"/v1/deliveries/crm/{path}")
    assert json.loads(call.body or "null") == body


def test_dead_letters(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    result = command("deliveries", "sales", "crm", "--dead-letters")
    assert "5c1f0e7a9b3d4c62-7" in result.out
    assert result.out.splitlines()[1].endswith("5          HTTP 422")


@pytest.mark.parametrize(
    "arguments", [["--pause"], ["crm", "--pause", "--replay-after", "5c1f0e7a9b3d4c62-7"]]
)
def test_what_is_not_clear_does_nothing(
    server: Server, command: Command, arguments: list[str]
) -> None:
    server.put(make_session("sales"))
    assert command("deliveries", "sales", *arguments).code == Exit.USAGE
    assert server.pod.calls == []


# --- backups --------------------------------------------------------------------------------------


def spawn(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wasession_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_backup_is_followed_until_it_is_completed(server: Server) -> None:
    server.put(make_session("sales", sessionValid=True))
    process = spawn("backup", "sales", "--name", "first")
    assert process.stdout is not None
    assert process.stderr is not None
    created = "whatsappsessionbackup.wasession.dev/first created\n"
    assert process.stdout.readline() == created
    assert server.backups["first"]["spec"] == {"sessionName": "sales"}
    assert process.stderr.readline() == "backup first is Pending\n"
    server.put(
        make_backup("first", "sales", "Pending", reason="Queued", message="Others are uploaded.")
    )
    assert process.stderr.readline() == "backup first is Pending: Others are uploaded.\n"
    server.put(make_backup("first", "sales"))
    _, errors = process.communicate()
    assert process.returncode == Exit.OK
    assert errors.splitlines()[-1] == "backup first is Completed"


def test_a_backup_is_named_after_its_session_and_time(server: Server, command: Command) -> None:
    server.put(make_session("sales", sessionValid=True))
    result = command("backup", "sales", "--no-wait", "-o", "name")
    assert result.code == Exit.OK
    [name] = server.backups
    assert re.fullmatch(r"sales-[0-9]{8}-[0-9]{6}", name)
    assert result.out == f"whatsappsessionbackup.wasession.dev/{name}\n"


@pytest.mark.parametrize("suspended", [False, True])
def test_a_volume_snapshot_is_made_of_a_suspended_session_too(
    server: Server, command: Command, suspended: bool
) -> None:
    server.put(make_session("sales", suspend=suspended, sessionValid=True))
    options = ("--name", "first", "--method", "VolumeSnapshot", "--no-wait")
    assert command("backup", "sales", *options).code == Exit.OK
    spec = {"sessionName": "sales", "method": "VolumeSnapshot"}
    assert server.backups["first"]["spec"] == spec


def test_a_backup_that_fails(server: Server) -> None:
    server.put(make_session("sales", sessionValid=True))
    process = spawn("backup", "sales", "--name", "first")
    assert process.stdout is not None
    process.stdout.readline()
    message = "The class of WhatsAppSession sales has no recipients."
    server.put(make_backup("first", "sales", "Failed", reason="RecipientsMissing", message=message))
    _, errors = process.communicate()
    assert process.returncode == Exit.ERROR
    assert f"error: backup first is Failed: {message}\n" in errors
    assert "backupPolicy of the WhatsAppSessionClass" in errors


def test_a_backup_that_is_not_completed_in_time(server: Server, command: Command) -> None:
    server.put(make_session("sales", sessionValid=True))
    result = command("backup", "sales", "--name", "first", "--timeout", "1s")
    assert result.code == Exit.NOT_READY
    assert "error: after 1 s, backup first is Pending" in result.err


@pytest.mark.parametrize(
    ("session", "words"),
    [
        (
            make_session("sales", "Suspended", suspend=True, sessionValid=True),
            "kubectl wasession resume sales",
        ),
        (make_session("sales", "Authenticating"), "kubectl wasession qr sales"),
    ],
)
def test_no_backup_is_made_of_what_has_nothing_to_back_up(
    server: Server, command: Command, session: Manifest, words: str
) -> None:
    server.put(session)
    result = command("backup", "sales")
    assert result.code == Exit.NOT_READY
    assert words in result.err
    assert server.backups == {}


def test_a_name_that_is_taken(server: Server, command: Command) -> None:
    server.put(make_session("sales", sessionValid=True))
    server.put(make_backup("first", "sales"))
    result = command("backup", "sales", "--name", "first")
    assert (result.code, "already exists" in result.err) == (Exit.ERROR, True)


def test_backups_newest_first(server: Server, command: Command) -> None:
    assert command("backups").err == "No backups found.\n"
    server.put(make_backup("old", "sales", takenAt="2026-11-23T10:00:00Z"))
    server.put(make_backup("failed", "sales", "Failed", message="The store is away."))
    server.put(make_backup("other", "support", takenAt="2026-11-24T09:00:00Z"))
    header, *rows = command("backups").out.splitlines()
    columns = ["NAME", "SESSION", "METHOD", "PHASE", "TAKEN", "SIZE", "AGE", "MESSAGE"]
    assert header.split() == columns
    assert [row.split()[0] for row in rows] == ["failed", "other", "old"]
    assert rows[0].endswith("The store is away.")
    assert re.search(r"Archive +Completed +\S+ ago +4.8 MiB", rows[1])
    assert command("backups", "sales", "-o", "name").out.splitlines() == [
        "whatsappsessionbackup.wasession.dev/failed",
        "whatsappsessionbackup.wasession.dev/old",
    ]
    assert command("backups", "nobody").err == "No backups found of session nobody.\n"


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        (
            [],
            {
                "clientId": "client-sales",
                "owner": "user-42",
                "bootstrap": {"fromBackup": {"name": "first"}},
            },
        ),
        (
            ["--class", "large", "--client-id", "mine", "--owner", "user-7", "--fenced"],
            {
                "className": "large",
                "clientId": "mine",
                "owner": "user-7",
                "bootstrap": {"fromBackup": {"name": "first"}, "fenced": True},
            },
        ),
    ],
)
def test_restore_creates_a_session(
    server: Server, command: Command, options: list[str], spec: dict[str, Any]
) -> None:
    server.put(make_backup("first", "sales"))
    result = command("restore", "first", "--as", "again", "--no-wait", *options)
    assert result.out == "whatsappsession.wasession.dev/again created\n"
    assert server.sessions["again"]["spec"] == spec


@pytest.mark.parametrize(
    ("age", "warned"), [(timedelta(hours=23), False), (timedelta(days=3), True)]
)
def test_an_old_copy_is_warned_of(
    server: Server, command: Command, age: timedelta, warned: bool
) -> None:
    server.put(make_backup("first", "sales", takenAt=rfc3339(datetime.now(UTC) - age)))
    result = command("restore", "first", "--as", "again", "--no-wait")
    assert ("warning: the copy is 3d old" in result.err) is warned
    assert "again" in server.sessions


def test_restore_is_followed_until_the_session_is_ready(server: Server) -> None:
    server.put(make_backup("first", "sales", takenAt=rfc3339(datetime.now(UTC))))
    process = spawn("restore", "whatsappsessionbackup.wasession.dev/first", "--as", "again")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    assert process.stderr.readline() == "session again is Pending\n"
    server.put(blocked("Pending", "BackupSourceRunning", "Session sales has the same login."))
    waiting = [process.stderr.readline() for _ in range(2)]
    assert waiting[0] == "session again is Pending: Session sales has the same login.\n"
    assert "kubectl wasession suspend SESSION" in waiting[1]
    server.put(make_session("again"))
    _, errors = process.communicate()
    assert (process.returncode, errors) == (Exit.OK, "session again is Ready\n")


def blocked(phase: str, reason: str, message: str, **status: Any) -> Manifest:
    """A session that is to begin with a backup, and does not."""
    session = make_session("again", phase, **status)
    degraded = {"type": "Degraded", "status": "True", "reason": reason, "message": message}
    degraded["lastTransitionTime"] = "2026-11-24T10:00:00Z"
    session["status"]["conditions"].append(degraded)
    return session


SKIPPED = {"backupUID": "b", "loginID": "l", "state": "Skipped", "at": "2026-11-24T10:00:00Z"}


@pytest.mark.parametrize(
    ("session", "words"),
    [
        (blocked("Pending", "BackupNotFound", "No backup."), "kubectl wasession backups"),
        (blocked("Pending", "BackupNotCompleted", "It is Failed."), "kubectl wasession backups"),
        (blocked("Pending", "BackupSourceNotFenced", "Elsewhere."), "spec.bootstrap.fenced"),
        (blocked("Failed", "LoginMoved", "Session new has it."), "delete that session"),
        (blocked("Restoring", "BootstrapFailed", "Wrong key."), "wasession-backup-identity"),
        (blocked("Ready", "BootstrapSkipped", "", bootstrap=SKIPPED), "without a volume"),
        (make_session("again", "Authenticating"), "kubectl wasession qr again"),
        (make_session("again", "LoggedOut"), "kubectl wasession qr again"),
    ],
)
def test_restore_ends_where_somebody_has_to_act(
    server: Server, session: Manifest, words: str
) -> None:
    server.put(make_backup("first", "sales"))
    process = spawn("restore", "first", "--as", "again")
    assert process.stdout is not None
    process.stdout.readline()
    server.put(session)
    _, errors = process.communicate()
    assert process.returncode == Exit.NOT_READY
    assert words in errors


def test_restore_of_what_is_not_completed_creates_nothing(server: Server, command: Command) -> None:
    server.put(make_backup("first", "sales", "Failed", reason="UploadFailed", message="HTTP 500."))
    result = command("restore", "first", "--as", "again")
    assert result.code == Exit.NOT_READY
    assert "backup first is Failed, not Completed: HTTP 500." in result.err
    assert server.sessions == {}


def test_restore_of_an_invalid_session_creates_nothing(server: Server, command: Command) -> None:
    server.put(make_backup("first", "sales"))
    result = command("restore", "first", "--as", "again", "--client-id", "not valid")
    assert result.code == Exit.USAGE
    assert "must be 1 to 64 letters, digits, _ and -" in result.err
    assert server.sessions == {}


# --- export and import ----------------------------------------------------------------------------


def test_export_adds_a_namespace_and_revoke_removes_it(server: Server, command: Command) -> None:
    server.put(make_backup("first", "sales"))
    resource = "whatsappsessionbackup.wasession.dev/first"
    result = command("export", "first", "--to", "support")
    assert result.out == f"{resource} exported to support\n"
    assert f"kubectl wasession -n support import {NAMESPACE}/first" in result.err
    command("export", "first", "--to", "archive")
    assert server.backups["first"]["spec"]["exportTo"] == ["support", "archive"]
    calls = len(server.calls)
    assert command("export", "first", "--to", "archive").out == (
        f"{resource} exported to archive already\n"
    )
    result = command("export", "first", "--to", "nobody", "--revoke")
    assert (result.out, result.err) == (f"{resource} not exported to nobody\n", "")
    assert {call.method for call in server.calls[calls:]} == {"GET"}
    result = command("export", "first", "--to", "support", "--revoke")
    assert result.out == f"{resource} no longer exported to support\n"
    assert server.backups["first"]["spec"]["exportTo"] == ["archive"]
    command("export", "first", "--to", "archive", "--revoke")
    assert server.backups["first"]["spec"]["exportTo"] is None


def test_an_export_overwrites_nobody_elses(server: Server, command: Command) -> None:
    backup = make_backup("first", "sales")
    server.put(backup)
    present = server.backups["first"]["metadata"]["resourceVersion"]
    patch = make_export(server.backups["first"], "support", revoked=False)
    assert patch is not None
    assert patch["metadata"]["resourceVersion"] == present


def test_a_volume_snapshot_is_not_exported(server: Server, command: Command) -> None:
    backup = make_backup("first", "sales")
    backup["spec"]["method"] = "VolumeSnapshot"
    server.put(backup)
    result = command("export", "first", "--to", "support")
    assert result.code == Exit.ERROR
    assert "cannot leave its namespace" in result.err
    assert "kubectl wasession backup sales --method Archive" in result.err
    assert "exportTo" not in server.backups["first"]["spec"]


def make_imported(phase: str = "Completed", **status: Any) -> Manifest:
    backup = make_backup("first", "eu", phase, **status)
    backup["spec"] = {"importFrom": {"namespace": "sales", "name": "first"}}
    if phase == "Completed":
        backup["status"]["source"]["namespace"] = "sales"
    return backup


def test_import_is_followed_and_says_how_to_go_on(server: Server) -> None:
    process = spawn("import", "sales/first")
    assert process.stdout is not None
    assert process.stderr is not None
    created = "whatsappsessionbackup.wasession.dev/first created\n"
    assert process.stdout.readline() == created
    spec = {"importFrom": {"namespace": "sales", "name": "first"}}
    assert server.backups["first"]["spec"] == spec
    assert process.stderr.readline() == "backup first is Pending\n"
    message = "WhatsAppSessionBackup sales/first does not exist, or is not exported to team."
    server.put(make_imported("Pending", reason="NotExported", message=message))
    waiting = [process.stderr.readline() for _ in range(2)]
    assert waiting[0] == f"backup first is Pending: {message}\n"
    assert "has to run the command in the message" in waiting[1]
    server.put(make_imported())
    _, errors = process.communicate()
    assert process.returncode == Exit.OK
    state, step = errors.splitlines()
    assert state == "backup first is Completed"
    assert "Secret wasession-backup-identity" in step
    assert step.endswith(f"kubectl wasession -n {NAMESPACE} restore first --as eu")


def test_an_import_can_be_repeated_under_its_name(server: Server, command: Command) -> None:
    assert command("import", "sales/first", "--as-backup", "moved", "--no-wait").code == Exit.OK
    result = command("import", "sales/first", "--as-backup", "moved", "--no-wait")
    resource = "whatsappsessionbackup.wasession.dev/moved"
    assert (result.code, result.out) == (Exit.OK, f"{resource} unchanged\n")
    result = command("import", "sales/second", "--as-backup", "moved")
    assert (result.code, "already exists" in result.err) == (Exit.ERROR, True)
    server.put(make_backup("second", "sales"))
    result = command("import", "sales/second")
    assert (result.code, "already exists" in result.err) == (Exit.ERROR, True)


def test_an_import_that_fails_or_takes_too_long(server: Server, command: Command) -> None:
    server.put(make_imported("Failed", reason="SourceNotServed", message="It is not served."))
    result = command("import", "sales/first")
    assert result.code == Exit.ERROR
    assert "error: backup first is Failed: It is not served." in result.err
    assert "watchNamespaces" in result.err
    result = command("import", "sales/other", "--timeout", "1s")
    assert result.code == Exit.NOT_READY
    assert "error: after 1 s, backup other is Pending" in result.err


def test_what_is_here_already_is_not_imported(server: Server, command: Command) -> None:
    result = command("import", f"{NAMESPACE}/first")
    assert result.code == Exit.USAGE
    assert f"kubectl wasession -n {NAMESPACE} restore first --as SESSION" in result.err
    assert server.backups == {}


def test_imports_are_listed_with_the_session_that_they_are_of(
    server: Server, command: Command
) -> None:
    server.put(make_imported())
    waiting = make_imported("Pending")
    waiting["metadata"]["name"] = "waiting"
    server.put(waiting)
    rows = {line.split()[0]: line.split()[1:3] for line in command("backups").out.splitlines()[1:]}
    assert rows["first"] == ["sales/eu", "Archive"]
    assert rows["waiting"][0] == "Archive", "its session is not known yet"
    assert command("backups", "eu", "-o", "name").out.splitlines() == [
        "whatsappsessionbackup.wasession.dev/first"
    ]


# --- send -----------------------------------------------------------------------------------------


def keys(pod: Pod) -> list[str]:
    return [call.headers["Idempotency-Key"] for call in pod.calls]


def test_send_a_text(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    result = command(
        "send", "sales", FRIEND, "Hello ✓", "--reply-to", "false_15550001111@c.us_3EB0AAAA"
    )
    assert result == (Exit.OK, "true_15550001111@c.us_3EB00000\n", "")
    [call] = server.pod.calls
    assert json.loads(call.body) == {
        "to": FRIEND,
        "text": "Hello ✓",
        "replyTo": "false_15550001111@c.us_3EB0AAAA",
    }
    assert len(call.headers["Idempotency-Key"]) == 36


def test_two_sends_are_two_messages(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    first, second = (command("send", "sales", FRIEND, "Hello").out for _ in range(2))
    assert first != second
    assert len(set(keys(server.pod))) == 2


def test_send_a_file(server: Server, command: Command, tmp_path: Path) -> None:
    server.put(make_session("sales"))
    invoice = tmp_path / "invoice.pdf"
    invoice.write_bytes(os.urandom(300_000))
    result = command("send", "sales", FRIEND, "The invoice", "--file", str(invoice), "-o", "json")
    assert json.loads(result.out)["id"] == "true_15550001111@c.us_3EB00000"
    [call] = server.pod.calls
    assert call.body == {
        "to": FRIEND,
        "caption": "The invoice",
        "file": ("invoice.pdf", invoice.read_bytes()),
    }


def test_a_token_that_is_being_rotated(server: Server, command: Command, tmp_path: Path) -> None:
    """Until it knows the new token, the pod accepts the previous one; a file arrives whole."""
    server.put(make_session("sales"))
    second = "second-token-of-the-session-pod-and-no-other"
    server.tokens = {"token": second, "previousToken": POD_TOKEN}
    attached = tmp_path / "picture.png"
    attached.write_bytes(os.urandom(300_000))
    for present, refused in ((POD_TOKEN, [second]), (second, [])):
        server.pod.token, server.pod.refused, server.pod.calls = present, [], []
        assert command("send", "sales", FRIEND, "--file", str(attached)).code == Exit.OK
        assert server.pod.refused == refused
        assert server.pod.calls[0].body["file"] == ("picture.png", attached.read_bytes())
    server.pod.token, server.pod.refused = "unknown", []
    result = command("logout", "sales", "--yes")
    assert (result.code, server.pod.refused) == (Exit.NOT_READY, [second, POD_TOKEN])
    assert "rejects its token" in result.err


def test_send_what_comes_in(server: Server) -> None:
    server.put(make_session("sales"))
    command = [sys.executable, "-m", "wasession_cli", "send", "sales", FRIEND, "-"]
    subprocess.run(command, input="from a pipe", text=True, check=True)
    assert json.loads(server.pod.calls[0].body)["text"] == "from a pipe"


@pytest.mark.parametrize(
    ("status", "detail"),
    [(503, "the session is Reconnecting, not Ready"), (409, "still under way")],
)
def test_send_tries_again_with_the_same_key(
    server: Server, command: Command, status: int, detail: str
) -> None:
    server.put(make_session("sales"))
    server.pod.faults["/v1/messages"] = [lambda: problem(status, detail)]
    assert command("send", "sales", FRIEND, "Hello").code == Exit.OK
    first, second = keys(server.pod)
    assert first == second


def test_send_whose_answer_is_lost_sends_once(server: Server, command: Command) -> None:
    server.put(make_session("sales"))
    server.pod.faults["/v1/messages"] = [None]
    result = command("send", "sales", FRIEND, "Hello")
    assert result.out == "true_15550001111@c.us_3EB00000 (sent by an earlier attempt)\n"
    first, second = keys(server.pod)
    assert first == second


def test_send_that_is_not_in_time_names_its_key(server: Server, command: Command) -> None:
    server.put(make_session("sales", "Reconnecting"))
    server.pod.faults["/v1/messages"] = [
        lambda: problem(503, "the session is Reconnecting, not Ready")
    ] * 100
    result = command("send", "sales", FRIEND, "Hello", "--timeout", "2s")
    assert result.code == Exit.NOT_READY
    assert "Reconnecting" in result.err
    assert f"--idempotency-key {keys(server.pod)[0]}" in result.err
    server.pod.faults.clear()
    assert command("send", "sales", FRIEND, "Hello", "--idempotency-key", "mine").code == Exit.OK
    assert keys(server.pod)[-1] == "mine"


def test_no_usage_error_shows_a_regular_expression(command: Command) -> None:
    for to in ("notanumber", "", "15550001111@example.com"):
        result = command("send", "sales", to, "Hello")
        assert result.code == Exit.USAGE
        assert "^" not in result.err


def test_send_between_two_pods_waits_for_the_next(server: Server) -> None:
    session = make_session("sales", "Restoring")
    del session["status"]["podName"]
    server.put(session)
    process = subprocess.Popen(
        [sys.executable, "-m", "wasession_cli", "send", "sales", FRIEND, "Hello"],
        stdout=subprocess.PIPE,
    )
    server.wait_for_calls(f"{LIST}/sales", 2)  # it has retried
    server.put(make_session("sales"))
    assert process.wait(60) == Exit.OK


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "sales", FRIEND, "Hello", "--timeout", "1s"),
        ("logout", "sales", "--yes"),
        ("logs", "sales"),
    ],
)
def test_between_two_pods_commands_say_what_is_awaited(
    server: Server, command: Command, arguments: tuple[str, ...]
) -> None:
    session = make_session("sales", "Restoring")
    del session["status"]["podName"]
    session["status"]["conditions"][0]["message"] = "The node is down."
    server.put(session)
    result = command(*arguments)
    assert result.code == Exit.NOT_READY
    assert "no pod at the moment, it is Restoring: The node is down." in result.err


def test_send_to_a_session_that_will_not_be_ready(server: Server, command: Command) -> None:
    server.put(make_session("sales", "Suspended", suspend=True))
    result = command("send", "sales", FRIEND, "Hello")
    assert result.code == Exit.NOT_READY
    assert "kubectl wasession resume sales" in result.err
    assert server.pod.calls == []


# --- what can go wrong with any of them -----------------------------------------------------------


def refuses(answer: web.Response) -> Callable[[Server], None]:
    def prepare(server: Server) -> None:
        server.pod.faults["/v1/messages"] = [lambda: answer]

    return prepare


def forbids(kind: str) -> Callable[[Server], None]:
    return lambda server: server.forbidden.add(kind)


def fails_to_forward(server: Server) -> None:
    server.forward_error = "connection refused inside namespace"


SEND = ("send", "sales", FRIEND, "Hello", "--timeout", "1s")


@pytest.mark.parametrize(
    ("arguments", "prepare", "code", "words"),
    [
        (("status", "nobody"), None, Exit.NOT_FOUND, '"nobody" not found'),
        (("restart", "nobody"), None, Exit.NOT_FOUND, '"nobody" not found'),
        (("suspend", "nobody"), None, Exit.NOT_FOUND, '"nobody" not found'),
        (("logs", "nobody"), None, Exit.NOT_FOUND, '"nobody" not found'),
        (("send", "nobody", FRIEND, "Hello"), None, Exit.NOT_FOUND, '"nobody" not found'),
        (("backup", "nobody"), None, Exit.NOT_FOUND, '"nobody" not found'),
        (("backup", "sales", "--name", "A"), None, Exit.USAGE, "must be a name of lower-case"),
        (("backups",), forbids("backups"), Exit.FORBIDDEN, "cannot do that"),
        (("restore", "none", "--as", "new"), None, Exit.NOT_FOUND, '"none" not found'),
        (("restore", "a b", "--as", "new"), None, Exit.USAGE, "is not a backup name"),
        (("restore", "first"), None, Exit.USAGE, "Missing option '--as'"),
        (("restore", "first", "--as", "New"), None, Exit.USAGE, "must be a name of lower-case"),
        (("export", "none", "--to", "a"), None, Exit.NOT_FOUND, '"none" not found'),
        (("export", "first"), None, Exit.USAGE, "Missing option '--to'"),
        (("export", "first", "--to", "a.b"), None, Exit.USAGE, "must be a name of lower-case"),
        (("import", "first"), None, Exit.USAGE, "is not of the form NAMESPACE/BACKUP"),
        (("import", "A/first"), None, Exit.USAGE, "must be a name of lower-case"),
        (("import", "a/b/c"), None, Exit.USAGE, "must be a name of lower-case"),
        (("import", "a/b"), forbids("backups"), Exit.FORBIDDEN, "cannot do that"),
        (("status", "a/../b c"), None, Exit.USAGE, "is not a session name"),
        (("status",), None, Exit.USAGE, "Missing argument"),
        (("send", "sales", FRIEND), None, Exit.USAGE, "TEXT or --file"),
        (("send", "sales", FRIEND, " \n"), None, Exit.USAGE, "TEXT or --file"),
        (("send", "sales", "notanumber", "Hello"), None, Exit.USAGE, "must be a phone number"),
        (("send", "sales", "+1 555-000-1111", "Hello"), None, Exit.USAGE, "must be a phone number"),
        (
            ("send", "sales", FRIEND, "Hello", "--reply-to", "it"),
            None,
            Exit.USAGE,
            "must be a message ID",
        ),
        (("qr", "sales", "--image", "qr.jpg"), None, Exit.USAGE, "must end with .png or .svg"),
        (("qr", "sales", "--image", "/no/where/qr.png"), None, Exit.USAGE, "does not exist"),
        (("send", "sales", FRIEND, "--file", "/nowhere"), None, Exit.USAGE, "No such file"),
        (("nothing",), None, Exit.USAGE, "No such command"),
        (("resume", "sales", "--wait", "--timeout", "soon"), None, Exit.USAGE, "is not a duration"),
        (("qr", "sales"), None, Exit.USAGE, "on a terminal only"),
        (("list", "--kubeconfig", "/nowhere"), None, Exit.ERROR, "no kubeconfig at /nowhere"),
        (("list", "--context", "elsewhere"), None, Exit.ERROR, "elsewhere"),
        (("list", "-n", "other"), None, Exit.ERROR, "this cluster has no WhatsAppSessions"),
        (("list",), forbids("whatsappsessions"), Exit.FORBIDDEN, "cannot do that"),
        (SEND, forbids("secrets"), Exit.FORBIDDEN, "the role edit grants it"),
        (SEND, forbids("portforward"), Exit.FORBIDDEN, "pods/portforward"),
        (SEND, fails_to_forward, Exit.NOT_READY, "connection refused inside namespace"),
        (SEND, refuses(problem(422, "text: too long")), Exit.USAGE, "text: too long"),
        (SEND, refuses(problem(413, "the file is too large")), Exit.USAGE, "the file is too large"),
        (
            SEND,
            refuses(problem(404, "15550001111 is not on WhatsApp")),
            Exit.NOT_FOUND,
            "is not on WhatsApp",
        ),
        (
            SEND,
            refuses(problem(502, "WhatsApp answered ERROR")),
            Exit.ERROR,
            "WhatsApp answered ERROR",
        ),
        (
            SEND,
            refuses(web.Response(status=500, text="<html>")),
            Exit.ERROR,
            "the session pod answered 500",
        ),
        (
            SEND,
            refuses(web.json_response({"hello": 1}, status=201)),
            Exit.ERROR,
            "the session pod's answer is invalid",
        ),
    ],
)
def test_exit_codes(
    server: Server,
    command: Command,
    arguments: tuple[str, ...],
    prepare: Callable[[Server], None] | None,
    code: int,
    words: str,
) -> None:
    server.put(make_session("sales"))
    if prepare is not None:
        prepare(server)
    result = command(*arguments)
    assert (result.code, words in result.err) == (code, True), result


def test_an_api_server_that_is_not_there(server: Server, command: Command, tmp_path: Path) -> None:
    away = server.kubeconfig()
    away["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "away").write_text(yaml.safe_dump(away))
    result = command("list", "--kubeconfig", str(tmp_path / "away"))
    assert result.code == Exit.ERROR
    assert "the API server is unreachable" in result.err


# --- the kubeconfig -------------------------------------------------------------------------------


def test_of_several_kubeconfigs_the_first_current_context_counts(
    server: Server, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = server.kubeconfig("other", "nowhere")
    (tmp_path / "other").write_text(yaml.safe_dump(other))
    (tmp_path / "none").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config"}))
    files = [str(tmp_path / name) for name in ("missing", "none", "kubeconfig", "other")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(files))
    assert command("list").code == Exit.OK
    assert server.calls[-1].path == LIST
    assert command("list", "--context", "other").code == Exit.ERROR
    assert "/namespaces/nowhere/" in server.calls[-1].path


def test_options_count_before_and_after_the_command(server: Server, command: Command) -> None:
    assert command("-n", "elsewhere", "list").code == Exit.ERROR
    assert "/namespaces/elsewhere/" in server.calls[-1].path
    assert command("-n", "elsewhere", "list", "-n", "team").code == Exit.OK


# --- help and completion --------------------------------------------------------------------------


def test_help_teaches(command: Command) -> None:
    assert "Exit codes:" in command("--help").out
    commands = ("list", "qr", "status", "logs", "restart", "suspend", "resume", "logout", "send")
    for name in (*commands, "backup", "backups", "restore"):
        result = command(name, "--help")
        assert result.code == Exit.OK
        assert f"Usage: kubectl wasession {name}" in result.out
        assert f"kubectl wasession {name}" in result.out.partition("Examples:")[2]


def values(lines: list[str]) -> list[Any]:
    return [line.partition("\t")[0] for line in lines]


def test_completion_in_the_form_that_kubectl_reads(two: Server) -> None:
    assert values(complete(["re"])) == ["restart", "restore", "resume", ":4"]
    two.put(make_backup("first", "sales"))
    assert complete(["restore", "f"]) == ["first", ":4"]
    assert complete(["export", "f"]) == ["first", ":4"]
    assert complete(["import", f"{NAMESPACE}/f"]) == [f"{NAMESPACE}/first", ":4"]
    assert complete(["import", "elsewhere/f"]) == complete(["import", "f"]) == [":4"]
    assert complete(["backups", "sa"]) == ["sales", ":4"]
    assert complete(["status", "s"]) == ["sales", "support", ":4"]
    assert complete(["status", "-n", "elsewhere", "s"]) == [":4"]
    assert values(complete(["status", "sales", "--out"])) == ["--output", ":4"]
    assert values(complete(["list", "-o", ""])) == ["wide", "json", "yaml", "name", ":4"]
    assert complete(["send", "sales", "x", "y", "--file", ""]) == [":0"]
