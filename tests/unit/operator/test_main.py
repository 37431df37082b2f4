"""What kopf logs about a session has the fields of the operator's own lines; why it exits."""

from __future__ import annotations

import json
import logging

import pytest
from wasession_api.kube.informer import ClusterRestored, log_failure
from wasession_api.logs import JsonFormatter
from wasession_operator.__main__ import log, name_session


def test_kopfs_lines_name_the_session() -> None:
    record = logging.LogRecord("kopf.objects", logging.WARNING, "", 0, "failed", None, None)
    reference = {"kind": "WhatsAppSession", "namespace": "ns", "name": "sales", "uid": "uid-1"}
    record.__dict__ |= {"k8s_ref": reference, "k8s_skip": False, "settings": object()}
    assert name_session(record)
    entry = json.loads(JsonFormatter().format(record))
    del entry["time"]
    assert entry == {
        "level": "warning",
        "logger": "kopf.objects",
        "message": "failed",
        "namespace": "ns",
        "session": "sales",
        "uid": "uid-1",
    }


def test_a_restored_etcd_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    restored = ClusterRestored("pods are at version 3, and were at 6")
    group = ExceptionGroup("shards", [ExceptionGroup("informers", [restored])])
    log_failure(log, "operator failed; exiting", group)
    (record,) = caplog.records
    assert record.message == "ClusterRestored: starting again"
    assert record.__dict__["error"] == str(restored)
    assert not record.exc_info


def test_a_bug_has_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = ExceptionGroup("shards", [ValueError("it is odd")])
    log_failure(log, "operator failed; exiting", error)
    assert "it is odd" in caplog.text
    assert caplog.records[0].message == "operator failed; exiting"
