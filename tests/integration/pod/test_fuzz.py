"""schemathesis sends a running pod requests that its OpenAPI document allows and forbids."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from integration.pod.conftest import TOKEN, Linked, Pod
from wasession_api.session_pod.events import EventKind

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
OUTWARDS = "configureDeliveries|backUp"  # the pod would call any URL that comes to mind
BEGINNINGS = (b"id: ", b"event: ")  # without an ID for a reader whose position is not known
VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


async def fuzz(pod: Pod, directory: Path, *arguments: str) -> None:
    """Run schemathesis against the pod; its report is the failure message."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"{pod.base}/openapi.json",
        "--checks=all",
        *arguments,
        cwd=directory,
        env=os.environ | {"POD_TOKEN": TOKEN, "POD_URL": pod.base},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()


async def test_a_ready_pod(linked: Linked, tmp_path: Path) -> None:
    """All responses are documented, and none is a server error."""
    await fuzz(
        linked.pod,
        tmp_path,
        # Streams have no end.
        f"--exclude-operation-id-regex=getEvents|getScreencast|logout|restart|{OUTWARDS}",
        # A message that was sent has an address for its file, and no file if it is a text.
        "--exclude-checks=ensure_resource_availability",
    )
    assert "Traceback" not in linked.pod.log
    await linked.pod.call(
        "POST", "/v1/messages", 201, json={"to": "15550001111", "text": "still there"}
    )


@given(
    types=VISIBLE | st.lists(st.sampled_from([*EventKind, ""]), max_size=4).map(",".join),
    last=VISIBLE,
)
@example(types="state", last="")
@settings(max_examples=60)
async def test_event_streams(linked: Linked, types: str, last: str) -> None:
    """Streams have no end, so check only their beginning."""
    http = linked.pod.http
    async with http.get(
        f"{linked.pod.base}/v1/events", params={"types": types}, headers={"Last-Event-ID": last}
    ) as answer:
        assert answer.status == (200 if types and set(types.split(",")) <= set(EventKind) else 422)
        if answer.status == 200:
            assert (await answer.content.readline()).startswith(BEGINNINGS) or "state" not in types


async def test_a_pod_that_is_not_ready(cut_off: Pod, tmp_path: Path) -> None:
    """Here 502 and 503 are expected, and a restart or logout breaks nothing."""
    await fuzz(
        cut_off,
        tmp_path,
        "--exclude-checks=not_a_server_error",
        f"--exclude-operation-id-regex=getEvents|{OUTWARDS}",
        "-n",
        "10",
    )
    assert "Traceback" not in cut_off.log
