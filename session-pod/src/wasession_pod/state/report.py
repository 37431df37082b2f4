"""Build the report that the pod publishes from the session's state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from wasession_api.session_pod.backup import BackupReport, Restoration
from wasession_api.session_pod.report import Notice, Report
from wasession_api.v1alpha1 import (
    DeliveryStatus,
    LastShutdown,
    PairingMethod,
    PairingStatus,
    Phase,
    Reason,
    WaJS,
)

from wasession_pod.state.memory_pressure import limit_too_low
from wasession_pod.state.model import State

# WhatsApp's help: linked devices are logged out when the phone is unused for over 14 days.
PHONE_WARNING, PHONE_LIMIT = timedelta(days=10), timedelta(days=14)


IDLE_AFTER = timedelta(minutes=1)  # less would change the report with each message
UNHEARD_AFTER = timedelta(seconds=30)  # for wa-js to find its way in a page that is connected
# A page that reloads itself so often does not work, although it may look well in between.
RELOADS_WINDOW, MAXIMUM_RELOADS = timedelta(minutes=10), 5
DOCUMENT_OUTDATED = (
    "WhatsApp wants a newer version of WhatsApp Web than the pinned document, and will refuse this "
    "one. Pin a newer document, or remove whatsappDocument from the WhatsAppSessionClass."
)


def build_report(
    state: State,
    *,
    client_id: str,
    session_uid: str | None,
    started_at: datetime,
    seq: int,
    now: datetime,
    last_shutdown: LastShutdown | None,
    method: PairingMethod,
    sandboxed: bool | None,
    wa_js: WaJS | None = None,
    document_sha256: str | None = None,
    fulfilled_logout: str | None = None,
    delivery_revision: str | None = None,
    deliveries: Sequence[DeliveryStatus] = (),
    backup: BackupReport | None = None,
    restoration: Restoration | None = None,
    login_id: str | None = None,
    used_at: datetime | None = None,
) -> Report:
    """Return the state as the operator and API clients see it.

    ``used_at`` is when the account was used last, if it was since the process started.
    """
    return Report(
        client_id=client_id,
        session_uid=session_uid,
        started_at=started_at,
        seq=seq,
        phase=state.phase,
        reason=state.reason,
        message=state.message,
        auth_state=state.auth_state,
        is_authenticated=state.is_authenticated,
        session_valid=state.session_valid,
        last_connected=state.last_connected,
        last_disconnect=state.last_disconnect,
        restored=state.restored,
        account=state.account,
        whatsapp_web_version=state.whatsapp_web_version,
        wa_js=wa_js,
        document_sha256=document_sha256,
        pairing=_pairing(state, method),
        last_shutdown=last_shutdown,
        sandboxed=sandboxed,
        fulfilled_logout=fulfilled_logout,
        phone_last_seen=state.phone_last_seen,
        warnings=warnings(state, now, pinned=document_sha256 is not None),
        delivery_revision=delivery_revision,
        deliveries=list(deliveries),
        idle_since=_idle_since(state, used_at, now),
        can_back_up=True,
        backup=backup,
        restoration=restoration,
        login_id=login_id,
    )


def _idle_since(state: State, used_at: datetime | None, now: datetime) -> datetime | None:
    """Return since when nobody has used the account; None until that has lasted a while.

    It counts from Ready at the earliest: what has come meanwhile is delivered then.
    """
    if state.phase is not Phase.READY or state.ready_since is None:
        return None
    since = state.ready_since if used_at is None else max(state.ready_since, used_at)
    return since.replace(microsecond=0) if now - since >= IDLE_AFTER else None


def _pairing(state: State, method: PairingMethod) -> PairingStatus | None:
    if state.phase is not Phase.AUTHENTICATING:
        return None
    return PairingStatus(
        available=state.code_expires_at is not None,
        method=method,
        attempt=state.round,
        expires_at=state.code_expires_at,
    )


def warnings(state: State, now: datetime, *, pinned: bool = False) -> list[Notice]:
    """Return the problems that need attention although the session still works.

    ``pinned`` says whether the page has a pinned document, which no reload replaces.
    """
    notices = []
    phone_last_seen = state.phone_last_seen if state.session_valid else None
    if phone_last_seen is not None and now - phone_last_seen >= PHONE_WARNING:
        message = (
            f"The account's phone was last active {(now - phone_last_seen).days} days ago; "
            f"WhatsApp logs this device out after {PHONE_LIMIT.days} days. "
            "Open WhatsApp on the phone."
        )
        notices.append(Notice(reason=Reason.PHONE_OFFLINE, message=message))
    if state.memory is not None and limit_too_low(state.memory, state.recycled_at, now):
        message = (
            f"The session uses nearly all of its {state.memory.limit // 2**20} MiB of memory. "
            "Raise its memory limit."
        )
        notices.append(Notice(reason=Reason.MEMORY_LOW, message=message))
    if state.unheard_since is not None and now - state.unheard_since >= UNHEARD_AFTER:
        message = (
            "Messages may be missed or not sent: WhatsApp Web has changed, and wa-js does not find "
            f"{', '.join(state.unheard)}. A newer wa-js may support this version."
        )
        notices.append(Notice(reason=Reason.MESSAGES_NOT_HEARD, message=message))
    reloads = [at for at in state.page_reloads if now - at < RELOADS_WINDOW]
    if len(reloads) >= MAXIMUM_RELOADS:
        minutes = int(RELOADS_WINDOW.total_seconds() / 60)
        message = (
            f"WhatsApp Web has reloaded itself {len(reloads)} times or more within {minutes} "
            "minutes; requests fail while it loads."
        )
        notices.append(Notice(reason=Reason.PAGE_RELOADING, message=message))
    if pinned and state.needs_update:
        notices.append(Notice(reason=Reason.DOCUMENT_OUTDATED, message=DOCUMENT_OUTDATED))
    if state.repair_message is not None:
        notices.append(Notice(reason=Reason.PROFILE_DAMAGED, message=state.repair_message))
    if state.volume_warning is not None:
        notices.append(state.volume_warning)
    if state.outbox_warning is not None:
        notices.append(state.outbox_warning)
    notices += state.launch_file_changes
    return notices
