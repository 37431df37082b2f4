"""Text for the terminal: tables, ages and summaries of sessions. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

from wasession_api.base import rfc3339
from wasession_api.kube.manifests import Manifest
from wasession_api.session_pod.delivery import DeadLetter, DeliveryDetails
from wasession_api.v1alpha1 import (
    Account,
    BackupMethod,
    BackupPhase,
    BackupStatus,
    ConditionType,
    Phase,
    Status,
)

Rows = Sequence[Sequence[str]]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the line feed


def status_of(session: Manifest) -> Status:
    """Return the status of a session; an empty one when it has none yet."""
    status = Status.model_validate(session.get("status") or {})
    if session["metadata"].get("deletionTimestamp"):
        # Most deletions are over before the operator writes that one is under way.
        return status.model_copy(update={"phase": Phase.TERMINATING})
    return status


def backup_status_of(backup: Manifest) -> BackupStatus:
    """Return the status of a backup; an empty one when it has none yet."""
    return BackupStatus.model_validate(backup.get("status") or {})


def overview(session: Manifest, now: datetime) -> list[tuple[str, str]]:
    """Return a summary of a session as labels and values."""
    metadata, status = session["metadata"], status_of(session)
    lines = [
        ("Session", f"{metadata['name']} in namespace {metadata['namespace']}"),
        ("Owner", session.get("spec", {}).get("owner")),
        ("Class", _class(session, status)),
        ("Phase", _phase(session, status, now)),
        ("Wakes", status.hibernation and f"{rfc3339(status.hibernation.wake_at)} at the latest"),
        (
            "Account",
            describe_account(status.account) if status.account else "none, no phone is linked",
        ),
        ("Login", _login(status)),
        ("WhatsApp Web", _page(status)),
        ("Pinned document", _pinned_document(status, now)),
        ("Last connected", status.last_connected and _moment(status.last_connected, now)),
        ("Last disconnected", _last_disconnect(status, now)),
        (
            "Pod",
            status.pod_name
            and status.pod_name + (f" on {status.node_name}" if status.node_name else ""),
        ),
        ("Restarts", _restarts(status, now)),
        ("Volume", status.pvc_name),
        ("Last backup", status.last_backup and _moment(status.last_backup, now)),
    ]
    return [(label, value) for label, value in lines if value]


def _page(status: Status) -> str | None:
    """Return the version of WhatsApp Web and of wa-js, as far as they are known."""
    wa_js, versions = status.wa_js, [status.whatsapp_web_version]
    if wa_js is not None:
        versions.append(f"wa-js {wa_js.version or wa_js.sha256[:12]}")
    return ", ".join(filter(None, versions)) or None


def _pinned_document(status: Status, now: datetime) -> str | None:
    if (document := status.whatsapp_document) is None:
        return None
    return f"{document.sha256[:12]}, since {_moment(document.since, now)}"


def _class(session: Manifest, status: Status) -> str | None:
    """Return the class whose values the session uses; before that, the one that it names."""
    if status.session_class is not None:
        return status.session_class.name
    named: str | None = session.get("spec", {}).get("className")
    return named


def no_pod(session: Manifest) -> str:
    """Return why a session has no pod at the moment."""
    status = status_of(session)
    ready = status.condition(ConditionType.READY)
    cause = (ready.message or ready.reason) if ready is not None else ""
    phase = status.phase or Phase.PENDING
    name = session["metadata"]["name"]
    return f"session {name} has no pod at the moment, it is {phase}" + (
        f": {cause}" if cause else ""
    )


def describe_account(account: Account) -> str:
    """Return an account's ID, with its name and platform if they are known."""
    details = ", ".join(part for part in (account.push_name, account.platform) if part)
    return f"{account.id} ({details})" if details else account.id


def conditions(status: Status, now: datetime) -> list[list[str]]:
    """Return a table of the conditions."""
    header = ["CONDITION", "STATUS", "FOR", "REASON", "MESSAGE"]
    rows = [
        [c.type, c.status, since(c.last_transition_time, now), c.reason, c.message]
        for c in status.conditions
    ]
    return [header, *rows]


def history(events: list[Manifest], now: datetime) -> list[list[str]]:
    """Return a table of the Events, oldest first."""
    rows = [["AGO", "TYPE", "REASON", "MESSAGE"]]
    for event in sorted(events, key=last_seen):
        count = event.get("count") or (event.get("series") or {}).get("count") or 1
        message = event.get("message", "") + (f" (x{count})" if count > 1 else "")
        age = since(datetime.fromisoformat(last_seen(event)), now)
        rows.append([age, event.get("type", ""), event.get("reason", ""), message])
    return rows


def deliveries(found: Sequence[DeliveryDetails], now: datetime) -> list[list[str]]:
    """Return a table of what is delivered to webhooks and sinks."""
    rows = [["NAME", "TO", "STATE", "FOR", "WAITING", "OLDEST", "DEAD", "ERROR"]]
    for one in found:
        oldest = since(one.oldest, now) if one.oldest else ""
        counts = [str(one.pending), oldest, str(one.dead_letters)]
        state = [one.state, since(one.since, now)]
        rows.append([one.name, plain(one.place), *state, *counts, one.error or ""])
    return rows


def dead_letters(letters: Sequence[DeadLetter], now: datetime) -> list[list[str]]:
    """Return a table of events that were given up."""
    rows = [["EVENT", "KIND", "AGO", "ATTEMPTS", "ERROR"]]
    rows += [
        [one.event_id, one.kind, since(one.at, now), str(one.attempts), one.error]
        for one in letters
    ]
    return rows


def backups(items: Sequence[Manifest], now: datetime) -> list[list[str]]:
    """Return a table of backups."""
    rows = [["NAME", "SESSION", "METHOD", "PHASE", "TAKEN", "SIZE", "AGE", "MESSAGE"]]
    for item in items:
        metadata, status = item["metadata"], backup_status_of(item)
        taken = f"{since(status.taken_at, now)} ago" if status.taken_at else ""
        size = "" if status.size is None else f"{status.size / 2**20:.1f} MiB"
        age = since(datetime.fromisoformat(metadata["creationTimestamp"]), now)
        phase = status.phase or BackupPhase.PENDING
        method = item["spec"].get("method", BackupMethod.ARCHIVE)
        named = [metadata["name"], _origin_of_backup(item), method]
        rows.append([*named, phase, taken, size, age, status.message])
    return rows


def session_of_backup(backup: Manifest) -> str:
    """Return the name of the session of a backup; empty for an import that has not begun."""
    source = backup_status_of(backup).source
    name: str = backup["spec"].get("sessionName") or (source.session_name if source else "")
    return name


def _origin_of_backup(backup: Manifest) -> str:
    """Return the session of a backup, with the namespace if it is that of another one."""
    source = backup_status_of(backup).source
    if source is None or source.namespace == backup["metadata"]["namespace"]:
        return session_of_backup(backup)
    return f"{source.namespace}/{source.session_name}"


def age_of_backup(backup: Manifest) -> datetime:
    """Return of which moment a backup is; until that is known, when it was created."""
    created = datetime.fromisoformat(backup["metadata"]["creationTimestamp"])
    return backup_status_of(backup).taken_at or created


def plain(text: str) -> str:
    """Return others' text, such as an account's name, without control characters."""
    return CONTROL.sub("\ufffd", text)


def align(rows: Rows, widths: Sequence[int] = (), gap: int = 3) -> tuple[list[str], list[int]]:
    """Return the lines of aligned columns, as kubectl prints them, and the columns' widths.

    ``widths`` are those of the table's earlier lines.
    """
    rows = [[plain(cell).replace("\n", " ") for cell in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    measured = [max(map(len, column)) for column in columns]
    measured = [max(pair) for pair in zip_longest(measured, widths, fillvalue=0)]
    padded = [(" " * gap).join(map(str.ljust, row, measured)) for row in rows]
    return [line.rstrip() for line in padded], measured


def table_header(columns: list[Manifest], *, wide: bool, namespaces: bool) -> list[str]:
    """Return the header of a ``meta.k8s.io/v1`` Table."""
    header = [columns[index]["name"].upper() for index in _shown(columns, wide)]
    return ["NAMESPACE", *header] if namespaces else header


def table_rows(
    columns: list[Manifest], table: Manifest, *, wide: bool, namespaces: bool
) -> list[list[str]]:
    """Return the rows of a Table as text."""
    rows = []
    for row in table.get("rows") or []:
        cells = [_cell(row["cells"][index]) for index in _shown(columns, wide)]
        rows.append([row["object"]["metadata"]["namespace"], *cells] if namespaces else cells)
    return rows


def _shown(columns: list[Manifest], wide: bool) -> list[int]:
    return [index for index, column in enumerate(columns) if wide or column.get("priority", 0) == 0]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def since(moment: datetime | None, now: datetime) -> str:
    """Return an age as kubectl writes it (k8s.io/apimachinery pkg/util/duration)."""
    if moment is None:
        return "<unknown>"
    return span(now - moment)


def last_seen(event: Manifest) -> str:
    """Return when an Event was observed last, as in RFC 3339."""
    series = event.get("series") or {}
    time = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(time or event["metadata"]["creationTimestamp"])


def span(length: timedelta) -> str:
    """Return a duration in at most two units."""
    seconds = max(int(length.total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    return f"{days}d" if days < 2 * 365 else f"{days // 365}y"


def _two(large: int, unit: str, small: int, smaller: str) -> str:
    return f"{large}{unit}{small}{smaller}" if small else f"{large}{unit}"


def _moment(moment: datetime, now: datetime) -> str:
    return f"{moment.astimezone().isoformat(sep=' ', timespec='seconds')}, {since(moment, now)} ago"


def _phase(session: Manifest, status: Status, now: datetime) -> str:
    if deleted_at := session["metadata"].get("deletionTimestamp"):
        return f"{status.phase} for {since(datetime.fromisoformat(deleted_at), now)}"
    phase, ready = str(status.phase or Phase.PENDING), status.condition(ConditionType.READY)
    if ready is None:
        return phase
    return f"{phase} for {since(ready.last_transition_time, now)}" + (
        f": {ready.message}" if ready.message else ""
    )


def _last_disconnect(status: Status, now: datetime) -> str | None:
    lost = status.last_disconnect
    return f"{_moment(lost.at, now)}, {lost.kind}: {lost.reason}" if lost else None


def _restarts(status: Status, now: datetime) -> str | None:
    restarts = status.restarts
    if restarts.count == 0:
        return None
    age, reason = since(restarts.last, now), restarts.reason or "unknown reason"
    return f"{restarts.count}, last {age} ago: {reason}"


def _login(status: Status) -> str:
    if not status.session_valid:
        return "none"
    if status.restorations == 0:
        return "valid"
    return f"valid, restored {status.restorations} time{'' if status.restorations == 1 else 's'}"
