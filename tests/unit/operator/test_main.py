"""What kopf logs about a session has the fields of the operator's own lines."""

from __future__ import annotations

import json
import logging

from wasession_api.logs import JsonFormatter
from wasession_operator.__main__ import name_session


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
