"""``kubectl wasession qr`` in a terminal, read as a phone's camera and a person read it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import segno
from support.terminal import Terminal
from wasession_api.session_pod.link_code import LinkCode
from wasession_api.session_pod.report import Report
from wasession_api.v1alpha1 import Phase
from wasession_cli.exits import Exit
from wasession_cli.pairing import Code, End, Waiting, screen, view_of_report, view_of_session

from .conftest import POD_TOKEN, Manifest, Server, make_session

# As long as WhatsApp's own: a reference and three keys.
FIRST = "2@" + ",".join(["Rm9yIHRlc3RzIG9ubHk" * 3, "a" * 44, "b" * 44, "c" * 44])
SECOND = FIRST.replace("a", "z")
ME = {"id": "15551234567@c.us", "pushName": "Sales"}
CTRL_C = "\x03"


# --- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "reason", "fields", "expected"),
    [
        (
            "Ready",
            "Connected",
            {"account": ME},
            End("Session sales is linked to 15551234567@c.us (Sales).", Exit.OK),
        ),
        ("Ready", "Connected", {}, End("Session sales is linked.", Exit.OK)),
        (
            "Authenticating",
            "WaitingForScan",
            {"pairing": {"available": True, "method": "QRCode", "attempt": 1}},
            None,
        ),
        (
            "Authenticating",
            "WaitingForScan",
            {"pairing": {"available": False, "method": "QRCode", "attempt": 1}},
            Waiting,
        ),
        ("Authenticating", "WaitingForScan", {}, Waiting),
        ("Syncing", "LoginWriting", {"message": "The login is being written."}, Waiting),
        ("Starting", "PageLoading", {}, Waiting),
        ("Restoring", "LoginRestoring", {"sessionValid": True}, Waiting),
        ("PasskeyRequired", "PasskeyRequired", {"message": "Confirm it on the phone."}, Waiting),
        ("LoggedOut", "LoggedOutByPhone", {"message": "Ended."}, Waiting),
        (
            "Failed",
            "PairingExpired",
            {"message": "No phone was linked in 5 rounds."},
            Exit.NOT_READY,
        ),
        ("Failed", "AccountBlocked", {"message": "Blocked."}, Exit.NOT_READY),
        ("Conflict", "OpenedElsewhere", {"message": "Open elsewhere."}, Exit.NOT_READY),
    ],
)
def test_what_a_report_means(
    phase: str, reason: str, fields: dict[str, object], expected: object
) -> None:
    report = {
        "clientId": "sales",
        "startedAt": "2026-11-24T10:00:00Z",
        "seq": 1,
        "phase": phase,
        "reason": reason,
        **fields,
    }
    view = view_of_report("sales", Report.model_validate(report))
    if isinstance(expected, Exit):
        assert isinstance(view, End)
        assert view.exit is expected
        assert str(fields["message"]) in view.message
    elif expected is Waiting:
        assert isinstance(view, Waiting)
        assert str(fields.get("message", "")) in view.message
    else:
        assert view == expected


def test_every_phase_has_something_to_show() -> None:
    for phase in Phase:
        report = Report(
            client_id="sales", started_at="2026-11-24T10:00:00Z", seq=1, phase=phase, reason="Any"
        )
        view = view_of_report("sales", report)
        assert isinstance(view, Waiting | End)
        assert view.message


@pytest.mark.parametrize(
    ("phase", "suspend", "expected"),
    [
        ("Authenticating", False, None),
        ("Pending", False, Waiting),
        ("Suspended", True, End),
        ("Authenticating", True, End),
    ],
)
def test_what_the_resource_means(phase: str, suspend: bool, expected: type | None) -> None:
    view = view_of_session("sales", make_session("sales", phase, suspend=suspend))
    assert view is None if expected is None else isinstance(view, expected)


def test_the_time_that_is_left() -> None:
    code = Code(
        LinkCode.model_validate({"method": "QRCode", "attempt": 2, "code": FIRST}), until=120.0
    )
    assert "round 2, 20 s left" in screen("sales", code, 100, 50, now=99.5)[-1]
    assert "round 2, 0 s left" in screen("sales", code, 100, 50, now=500.0)[-1]


# --- in a terminal --------------------------------------------------------------------------------


Start = Callable[..., Terminal]


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """``kubectl wasession qr sales`` in a terminal, with a session whose pod is up."""
    server.put(make_session("sales", "Authenticating"))
    terminals: list[Terminal] = []

    def begin(*arguments: str, columns: int = 100, lines: int = 50) -> Terminal:
        command = [sys.executable, "-m", "wasession_cli", *(arguments or ("qr", "sales"))]
        terminals.append(
            Terminal(command, {"KUBECONFIG": os.environ["KUBECONFIG"]}, columns, lines)
        )
        return terminals[-1]

    yield begin
    for terminal in terminals:
        with terminal:
            pass


def assert_left_in_order(terminal: Terminal) -> None:
    """The screen from before is back, with its cursor, and no QR is on it."""
    drawn, left, after = terminal.output.rpartition(b"\x1b[?1049l")
    assert left
    assert b"\x1b[?1049h" in drawn
    assert drawn.rfind(b"\x1b[?25h") > drawn.rfind(b"\x1b[?25l")
    assert "▀".encode() not in after
    assert b"Traceback" not in terminal.output


def test_a_qr_is_read_from_the_screen_and_changes_until_a_phone_is_linked(
    server: Server, start: Start
) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start()
    terminal.wait_qr(FIRST)
    server.change_pod(lambda pod: pod.offer(SECOND))
    terminal.wait_qr(SECOND)
    server.change_pod(
        lambda pod: pod.say(
            "Syncing", "MessagesSyncing", message="WhatsApp Web loads the messages."
        )
    )
    terminal.wait_text("The phone is linked. WhatsApp Web loads the messages.")
    assert terminal.qr() is None
    server.change_pod(lambda pod: pod.say("Ready", "Connected", account=ME))
    assert terminal.wait() == Exit.OK
    assert b"Session sales is linked to 15551234567@c.us (Sales)." in terminal.output
    assert FIRST.encode() not in terminal.output
    assert_left_in_order(terminal)


def test_a_pairing_code_is_shown_as_the_phone_shows_it(server: Server, start: Start) -> None:
    server.change_pod(lambda pod: pod.offer("ABCD1234", method="PairingCode"))
    terminal = start()
    terminal.wait_text("ABCD-1234")
    terminal.type(CTRL_C)
    assert terminal.wait() == Exit.INTERRUPTED
    assert_left_in_order(terminal)


def test_used_up_rounds_end_it_with_the_way_to_go_on(server: Server, start: Start) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST, attempt=5))
    terminal = start()
    terminal.wait_qr(FIRST)
    server.change_pod(
        lambda pod: pod.say("Failed", "PairingExpired", message="No phone was linked in 5 rounds.")
    )
    assert terminal.wait() == Exit.NOT_READY
    assert b"No phone was linked in 5 rounds." in terminal.output
    assert b"kubectl wasession qr sales" in terminal.output
    assert_left_in_order(terminal)


def test_after_the_last_round_the_command_asks_for_new_codes(server: Server, start: Start) -> None:
    server.change_pod(
        lambda pod: pod.say("Failed", "PairingExpired", message="No phone was linked in 5 rounds.")
    )
    terminal = start()
    terminal.wait_qr("2@a-new-code,after,the,last,round")
    assert ("POST", "/v1/pairing/refresh") in [
        (call.method, call.path) for call in server.pod.calls
    ]


def test_it_waits_for_the_pod_and_outlives_it(server: Server, start: Start) -> None:
    server.put(make_session("sales", "Pending"))
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start()
    terminal.wait_text("Waiting for the session's pod.")
    server.put(make_session("sales", "Authenticating"))
    terminal.wait_qr(FIRST)
    server.change_pod(lambda pod: setattr(pod, "code", None))
    server.drop_connections()
    terminal.wait_text("Waiting for a new code.")
    server.change_pod(lambda pod: pod.offer(SECOND))
    terminal.wait_qr(SECOND)


def test_the_token_is_rotated_meanwhile(server: Server, start: Start) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start()
    terminal.wait_qr(FIRST)
    second = "second-token-of-the-session-pod-and-no-other"
    server.tokens = {"token": second, "previousToken": POD_TOKEN}
    server.change_pod(lambda pod: setattr(pod, "token", second))
    server.change_pod(
        lambda pod: pod.offer(SECOND)
    )  # heard on the stream from before, fetched with the new token
    terminal.wait_qr(SECOND)
    assert server.pod.refused == [POD_TOKEN]


def test_a_window_that_is_too_small_says_so_until_it_is_large_enough(
    server: Server, start: Start
) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start(columns=80, lines=24)
    terminal.wait_text("this terminal has 80 and 24")
    terminal.wait_text("kubectl wasession qr sales --image qr.png")
    terminal.resize(90, 45)
    terminal.wait_qr(FIRST)


def image_of(code: str) -> bytes:
    buffer = io.BytesIO()
    segno.make_qr(code, error="l").save(buffer, kind="png", scale=8)
    return buffer.getvalue()


def test_an_image_has_each_code_and_goes_with_the_last(
    server: Server, start: Start, tmp_path: Path
) -> None:
    """In a terminal too small for the QR code."""
    path = tmp_path / "qr.png"
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start("qr", "sales", "--image", str(path), columns=80, lines=24)
    terminal.wait_text("Then scan the QR code in this file:")
    assert path.read_bytes() == image_of(FIRST)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.change_pod(lambda pod: pod.offer(SECOND, attempt=2))
    terminal.wait_text("round 2")
    assert path.read_bytes() == image_of(SECOND)
    server.change_pod(lambda pod: pod.say("Syncing", "MessagesSyncing", message="Syncing."))
    terminal.wait_text("The phone is linked.")
    assert not path.exists()
    server.change_pod(lambda pod: pod.say("Ready", "Connected", account=ME))
    assert terminal.wait() == Exit.OK
    assert_left_in_order(terminal)


def test_an_image_is_removed_when_the_command_is_interrupted(
    server: Server, start: Start, tmp_path: Path
) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start("qr", "sales", "--image", str(tmp_path / "qr.svg"))
    terminal.wait_text("Then scan the QR code in this file:")
    assert (tmp_path / "qr.svg").read_text().startswith("<?xml")
    terminal.type(CTRL_C)
    assert terminal.wait() == Exit.INTERRUPTED
    assert list(tmp_path.glob("*qr*")) == []


def test_an_image_without_a_terminal(server: Server, tmp_path: Path) -> None:
    server.put(make_session("sales", "Authenticating"))
    server.change_pod(lambda pod: pod.offer(FIRST))
    path = tmp_path / "qr.png"
    command = [sys.executable, "-m", "wasession_cli", "qr", "sales", "--image", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"The QR code of round 1 is in {path}.\n"
    assert path.read_bytes() == image_of(FIRST)
    server.change_pod(lambda pod: pod.say("Ready", "Connected", account=ME))
    out, _ = process.communicate(timeout=60)
    assert out == "Session sales is linked to 15551234567@c.us (Sales).\n"
    assert process.returncode == Exit.OK
    assert not path.exists()


def test_a_pairing_code_needs_a_terminal(server: Server, tmp_path: Path) -> None:
    server.put(make_session("sales", "Authenticating"))
    server.change_pod(lambda pod: pod.offer("ABCD1234", method="PairingCode"))
    command = [sys.executable, "-m", "wasession_cli", "qr", "sales"]
    command += ["--image", str(tmp_path / "qr.png")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == Exit.ERROR
    assert "shown on terminals only" in result.stderr
    assert "ABCD" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("session", "code", "words"),
    [
        (
            make_session("sales", "Suspended", suspend=True),
            Exit.NOT_READY,
            "kubectl wasession resume sales",
        ),
        (make_session("other"), Exit.NOT_FOUND, '"sales" not found'),
    ],
)
def test_sessions_that_cannot_be_linked(
    server: Server, start: Start, session: Manifest, code: int, words: str
) -> None:
    server.sessions.clear()
    server.put(session)
    terminal = start()
    assert terminal.wait() == code
    assert words.encode() in terminal.output


def test_a_timeout_names_the_way_to_go_on(server: Server, start: Start) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start("qr", "sales", "--timeout", "2s")
    assert terminal.wait() == Exit.NOT_READY
    assert b"to go on: kubectl wasession qr sales" in terminal.output


def test_sigterm_leaves_the_terminal_in_order(server: Server, start: Start) -> None:
    server.change_pod(lambda pod: pod.offer(FIRST))
    terminal = start()
    terminal.wait_qr(FIRST)
    terminal.process.terminate()
    assert terminal.wait() == 143
    assert_left_in_order(terminal)


@pytest.mark.parametrize(
    ("answer", "code", "calls"),
    [("y\n", 0, 1), ("n\n", Exit.ERROR, 0), (CTRL_C, Exit.INTERRUPTED, 0)],
)
def test_logout_asks_first(
    server: Server, start: Start, answer: str, code: int, calls: int
) -> None:
    server.put(make_session("sales", account=ME))
    terminal = start("logout", "sales")
    terminal.wait_text("Log session sales out of 15551234567@c.us?")
    if answer == CTRL_C:
        terminal.interrupt()
    else:
        terminal.type(answer)
    assert terminal.wait() == code
    assert len(server.pod.calls) == calls
