"""What the commands say, made from what the API server has: pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import Account, Condition, Phase, Reason, Status

Rows = Sequence[Sequence[str]]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the line break

# docs/status.md in a sentence each: what helps when the session is Degraded, by the reason; else by
# the phase.
BY_REASON: dict[str, str] = {
    Reason.ACCOUNT_BANNED: "WhatsApp has banned the account: ask WhatsApp's support.",
    Reason.ACCOUNT_BLOCKED: "WhatsApp has blocked the account for its terms: ask WhatsApp's support.",
    Reason.ACCOUNT_LOCKED: "WhatsApp has locked the account: unlock it on the phone.",
    Reason.BROWSER_CRASHED: "When it happens often, give it more memory: spec.browser.resources.limits.memory",
    Reason.BROWSER_FAILED: "The message says why Chromium does not start: check spec.browser and the pod's security context.",
    Reason.BROWSER_HUNG: "When it happens often, give it more CPU or memory: spec.browser.resources",
    Reason.CLIENT_ID_SHARED: "Another session has the same clientId: delete one, or give it another clientId.",
    Reason.CRASH_LOOP_BACK_OFF: "Read why it ends: kubectl wasession logs {name} --previous",
    Reason.CREATE_CONTAINER_CONFIG_ERROR: "The message says what the container lacks, such as the Secret in spec.browser.proxySecretRef.",
    Reason.CREATE_CONTAINER_ERROR: "Look at the pod: kubectl describe pod {pod}",
    Reason.IMAGE_PULL_BACK_OFF: "Check the image's name, spec.browser.image, and spec.podTemplate.spec.imagePullSecrets.",
    Reason.INITIALIZATION_TIMEOUT: "Give it more time, spec.timeouts.initialization, or more CPU, spec.browser.resources.",
    Reason.INVALID_SPEC: "Correct the spec: kubectl edit wasession {name}",
    Reason.LOGIN_MISSING: "The volume has lost its login. Restore it, or link the phone: kubectl wasession qr {name}",
    Reason.LOGOUT_FAILED: "The logout could not be done: unlink the device on the phone.",
    Reason.MEMORY_LOW: "Give it more memory: spec.browser.resources.limits.memory",
    Reason.NAME_CONFLICT: "Another object has the name that the session's needs: rename one of the two.",
    Reason.NODE_LOST: "Bring its node back. Is that off for good, taint it node.kubernetes.io/out-of-service, or delete it.",
    Reason.OOM_KILLED: "Give it more memory: spec.browser.resources.limits.memory",
    Reason.PAGE_CRASHED: "When it happens often, give it more memory: spec.browser.resources.limits.memory",
    Reason.PAGE_HUNG: "When it happens often, give it more CPU or memory: spec.browser.resources",
    Reason.PAGE_INCOMPATIBLE: "WhatsApp Web has changed in a way that this version does not know: upgrade wasession.",
    Reason.PAIRING_EXPIRED: "Link a phone: kubectl wasession qr {name}",
    Reason.PHONE_OFFLINE: "Connect the phone: WhatsApp ends the login when it stays away for 14 days.",
    Reason.POD_FAILED: "Another pod comes. Read why this one has failed: kubectl wasession logs {name} --previous",
    Reason.POD_NOT_READY: "Look at the pod: kubectl describe pod {pod}",
    Reason.POD_CREATE_FAILED: "The message says why the API server rejects the pod: quota, admission or spec.podTemplate.",
    Reason.POD_DELETE_FAILED: "The message says why the API server does not let the pod be deleted: admission.",
    Reason.POD_UPDATE_FAILED: "The pod gets its new token within about a minute; the message says what rejects the update.",
    Reason.POD_UNREACHABLE: "The operator cannot hear the pod: check the NetworkPolicies between them, port 8080.",
    Reason.PROFILE_DAMAGED: "The last good copy was taken. When that does not help: kubectl wasession qr {name}",
    Reason.PROXY_BLOCKED: "WhatsApp refuses this network. Use another proxy: spec.browser.proxySecretRef",
    Reason.PROXY_FAILED: "Check the proxy and its Secret: spec.browser.proxySecretRef",
    Reason.PVC_CREATE_FAILED: "The message says why the API server rejects the volume claim: quota or spec.storage.",
    Reason.PVC_DELETE_FAILED: "The message says why the API server does not let the claim be deleted: admission.",
    Reason.PVC_EXPAND_FAILED: "The volume cannot be expanded: its StorageClass needs allowVolumeExpansion.",
    Reason.PVC_UPDATE_FAILED: "The message says why the API server rejects the claim's new owner: admission.",
    Reason.RESTORATION_FAILED: "WhatsApp did not take the stored login. Link the phone again: kubectl wasession qr {name}",
    Reason.RUN_CONTAINER_ERROR: "Look at the pod: kubectl describe pod {pod}",
    Reason.SECRET_CREATE_FAILED: "The message says why the API server rejects the session's Secret: quota or admission.",
    Reason.SECRET_UPDATE_FAILED: "The message says why the API server rejects the new token: admission.",
    Reason.UNSCHEDULABLE: "No node takes the pod: kubectl describe pod {pod} says why.",
    Reason.VERSION_REFUSED: "WhatsApp wants a newer version of its page: kubectl wasession restart {name}",
    Reason.VOLUME_FULL: "Make the volume larger: spec.storage.size",
    Reason.VOLUME_IN_USE: "Another process uses the volume. When that stays, look for another pod on it.",
    Reason.VOLUME_LOST: "Restore the volume claim {pvc}, or give it up with the annotation wasession.dev/accept-data-loss.",
    Reason.VOLUME_LOW: "Make the volume larger: spec.storage.size",
    Reason.VOLUME_OF_ANOTHER_SESSION: "The volume holds another session's login: restore the right one.",
    Reason.VOLUME_PENDING: "The volume is not there yet: kubectl describe pvc {pvc} says why.",
    Reason.VOLUME_READ_ONLY: "The session cannot write its volume: look at the storage, often it is a damaged file system.",
    Reason.VOLUME_TERMINATING: "The claim is being deleted: copy the volume now, then delete the session.",
    Reason.WHATSAPP_UNREACHABLE: "WhatsApp Web cannot be opened: check network, DNS, NetworkPolicies and the proxy.",
}
BY_PHASE: dict[Phase, str] = {
    Phase.READY: "Nothing, it is ready. Send something: kubectl wasession send {name} PHONE-NUMBER TEXT",
    Phase.AUTHENTICATING: "Link a phone: kubectl wasession qr {name}",
    Phase.LOGGED_OUT: "Link a phone again: kubectl wasession qr {name}",
    Phase.PASSKEY_REQUIRED: "Confirm the passkey on the phone; kubectl wasession qr {name} shows when it is done.",
    Phase.CONFLICT: "Close WhatsApp Web there, or let the session take the login back: spec.whatsapp.takeover",
    Phase.SUSPENDED: "Start it again: kubectl wasession resume {name}",
    Phase.TERMINATING: "Nothing, it is being deleted.",
    Phase.FAILED: "Read its log, then start it anew: kubectl wasession logs {name}; kubectl wasession restart {name}",
}
UPDATE = "Its template has changed. When that should not wait for the next start: kubectl wasession restart {name}"
GOES_ON = "Nothing yet, it goes on by itself."


def status_of(session: Manifest) -> Status:
    return Status.model_validate(session.get("status") or {})


def condition(status: Status, kind: str) -> Condition | None:
    return next((found for found in status.conditions if found.type == kind), None)


def advice(name: str, status: Status) -> str:
    """What to do next, in a sentence."""
    phase, degraded, progressing = (
        status.phase,
        condition(status, "Degraded"),
        condition(status, "Progressing"),
    )
    words = BY_PHASE.get(phase, GOES_ON) if phase is not None else GOES_ON
    if phase in (Phase.SUSPENDED, Phase.TERMINATING):
        pass  # was decided by a person, and nothing else helps
    elif degraded is not None and degraded.status == "True":
        words = BY_REASON.get(degraded.reason, words)
    elif progressing is not None and progressing.reason == Reason.UPDATE_PENDING:
        words = UPDATE
    return words.format(name=name, pod=status.pod_name, pvc=status.pvc_name)


def overview(session: Manifest, now: datetime) -> list[tuple[str, str]]:
    """The most important of a session, as pairs of a word and what there is to say of it."""
    metadata, status = session["metadata"], status_of(session)
    lines = [
        ("Session", f"{metadata['name']} in namespace {metadata['namespace']}"),
        ("Owner", session.get("spec", {}).get("owner")),
        ("Phase", _phase(status, now)),
        (
            "Account",
            account(status.account) if status.account else "none: no phone has been linked",
        ),
        ("Login", _login(status)),
        ("Last connected", status.last_connected and _moment(status.last_connected, now)),
        ("Last disconnected", _last_disconnect(status, now)),
        (
            "Pod",
            status.pod_name
            and status.pod_name + (f" on {status.node_name}" if status.node_name else ""),
        ),
        ("Restarts", _restarts(status, now)),
        ("Volume", status.pvc_name),
    ]
    return [(word, said) for word, said in lines if said]


def account(linked: Account) -> str:
    """An account's id, and its name and platform where they are known."""
    more = ", ".join(part for part in (linked.push_name, linked.platform) if part)
    return f"{linked.id} ({more})" if more else linked.id


def conditions(status: Status, now: datetime) -> list[list[str]]:
    """A table of the conditions."""
    header = ["CONDITION", "STATUS", "FOR", "REASON", "MESSAGE"]
    rows = [
        [c.type, c.status, since(c.last_transition_time, now), c.reason, c.message]
        for c in status.conditions
    ]
    return [header, *rows]


def history(events: list[Manifest], now: datetime) -> list[list[str]]:
    """A table of the Events, oldest first."""
    rows = [["AGO", "TYPE", "REASON", "MESSAGE"]]
    for event in sorted(events, key=happened):
        times = event.get("count") or (event.get("series") or {}).get("count") or 1
        message = event.get("message", "") + (f" (x{times})" if times > 1 else "")
        age = since(datetime.fromisoformat(happened(event)), now)
        rows.append([age, event.get("type", ""), event.get("reason", ""), message])
    return rows


def plain(text: str) -> str:
    """What others have worded, such as an account's name, without what a terminal would take for a command."""
    return CONTROL.sub("\ufffd", text)


def align(rows: Rows, widths: Sequence[int] = (), gap: int = 3) -> tuple[list[str], list[int]]:
    """Columns as kubectl writes them, and their widths, which later lines of the same table begin with."""
    rows = [[plain(cell).replace("\n", " ") for cell in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    measured = [max(map(len, column)) for column in columns]
    measured = [max(pair) for pair in zip_longest(measured, widths, fillvalue=0)]
    padded = [(" " * gap).join(map(str.ljust, row, measured)) for row in rows]
    return [line.rstrip() for line in padded], measured


def table_header(columns: list[Manifest], *, wide: bool, namespaces: bool) -> list[str]:
    """The header of a ``meta.k8s.io/v1`` Table."""
    header = [columns[index]["name"].upper() for index in _shown(columns, wide)]
    return ["NAMESPACE", *header] if namespaces else header


def table_rows(
    columns: list[Manifest], table: Manifest, *, wide: bool, namespaces: bool
) -> list[list[str]]:
    """The rows of a Table as text."""
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
    """How long ago, as kubectl writes ages (k8s.io/apimachinery pkg/util/duration)."""
    if moment is None:
        return "<unknown>"
    return span(now - moment)


def happened(event: Manifest) -> str:
    """When an Event was seen last, RFC 3339."""
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(seen or event["metadata"]["creationTimestamp"])


def span(length: timedelta) -> str:
    """A length of time in at most two units."""
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


def _phase(status: Status, now: datetime) -> str:
    phase, ready = str(status.phase or Phase.PENDING), condition(status, "Ready")
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
    return f"{restarts.count}, last {since(restarts.last, now)} ago: {restarts.reason or 'for an unknown reason'}"


def _login(status: Status) -> str:
    if not status.session_valid:
        return "none that is valid"
    if status.restorations == 0:
        return "valid"
    return f"valid, restored {status.restorations} time{'' if status.restorations == 1 else 's'}"
