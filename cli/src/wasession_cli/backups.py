"""Backups and sessions that are restored from them: what to create, and how far it is. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import ValidationError
from wasession_api.http.problem import describe_error
from wasession_api.kube.manifests import Manifest
from wasession_api.v1alpha1 import (
    API_VERSION,
    BACKUP_KIND,
    KIND,
    BackupMethod,
    BackupPhase,
    BackupSpec,
    BootstrapState,
    ConditionType,
    ImportSource,
    Phase,
    Reason,
    Spec,
)
from wasession_api.v1alpha1.backup import IDENTITY_SECRET_NAME

from wasession_cli import advice, formatting
from wasession_cli.exits import Exit, Failure, Invalid, NotReady
from wasession_cli.pairing import End, Waiting

# What keeps a session from its backup until somebody acts. BackupSourceRunning passes as soon as
# the pod of a suspended source is gone.
BLOCKED = {
    Reason.BACKUP_NOT_COMPLETED,
    Reason.BACKUP_NOT_FOUND,
    Reason.BACKUP_SOURCE_NOT_FENCED,
    Reason.BOOTSTRAP_FAILED,
    Reason.LOGIN_MOVED,
}
OLD = timedelta(days=1)
# Phases of a restored session that it does not leave without help.
STALLED = {
    Phase.AUTHENTICATING,  # WhatsApp has not accepted the login
    Phase.CONFLICT,
    Phase.FAILED,
    Phase.LOGGED_OUT,
    Phase.PASSKEY_REQUIRED,
    Phase.SUSPENDED,
    Phase.TERMINATING,
}


def make_backup(
    session: Manifest, name: str | None, now: datetime, method: BackupMethod
) -> Manifest:
    """Return a new backup of a session; raise ``NotReady`` for one that cannot be backed up."""
    session_name = session["metadata"]["name"]
    status = formatting.status_of(session)
    if session["metadata"].get("deletionTimestamp"):
        raise NotReady(f"session {session_name} is being deleted")
    if session.get("spec", {}).get("suspend") and method is BackupMethod.ARCHIVE:
        hint = f"start it first: kubectl wasession resume {session_name}"
        raise NotReady(
            f"session {session_name} is suspended; only a running one can upload an archive", hint
        )
    if not status.session_valid:
        step = advice.next_step(session_name, status)
        raise NotReady(f"session {session_name} has no valid login to back up", step)
    spec = BackupSpec(session_name=session_name)
    if method is not BackupMethod.ARCHIVE:  # the default, which older operators have alone
        spec = BackupSpec(session_name=session_name, method=method)
    return _manifest(name or f"{session_name}-{now:%Y%m%d-%H%M%S}", spec)


def _manifest(name: str, spec: BackupSpec) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": BACKUP_KIND,
        "metadata": {"name": name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }


def make_export(backup: Manifest, namespace: str, *, revoked: bool) -> Manifest | None:
    """Return the patch with which a namespace may import a backup, or may not any more.

    None: it is so already. Raise ``Failure`` for a backup that cannot be exported.
    """
    name, spec = backup["metadata"]["name"], backup["spec"]
    if spec.get("method") == BackupMethod.VOLUME_SNAPSHOT and not revoked:
        raise Failure(
            f"backup {name} is a VolumeSnapshot, which cannot leave its namespace",
            f"make one that can: kubectl wasession backup {spec['sessionName']} --method Archive",
        )
    before: list[str] = spec.get("exportTo") or []
    after = [one for one in before if one != namespace] + ([] if revoked else [namespace])
    if set(after) == set(before):
        return None
    version = backup["metadata"]["resourceVersion"]  # so that nobody else's change is lost
    return {"metadata": {"resourceVersion": version}, "spec": {"exportTo": after or None}}


def make_import(namespace: str, backup: str, name: str) -> Manifest:
    """Return a new backup that is imported from another namespace."""
    source = ImportSource(namespace=namespace, name=backup)
    return _manifest(name, BackupSpec(import_from=source))


def make_session(
    backup: Manifest,
    name: str,
    *,
    class_name: str | None,
    client_id: str | None,
    owner: str | None,
    fenced: bool,
) -> Manifest:
    """Return a new session that begins with a backup.

    It has the backup's clientId and owner unless others are given. Raises ``NotReady`` for a backup
    that is not completed, and ``Invalid``.
    """
    backup_name, status = backup["metadata"]["name"], formatting.backup_status_of(backup)
    if status.phase is BackupPhase.COMPLETED and status.source is None:
        raise NotReady(
            f"the source of backup {backup_name} cannot be read: the operator has another version"
        )
    if status.phase is not BackupPhase.COMPLETED or status.source is None:
        raise NotReady(
            f"backup {backup_name} is {status.phase or BackupPhase.PENDING}, not Completed"
            + (f": {status.message}" if status.message else ""),
            advice.next_backup_step(formatting.session_of_backup(backup), status),
        )
    fields = {
        "className": class_name,
        "clientId": client_id or status.source.client_id,
        "owner": owner or status.source.owner,
        "bootstrap": {"fromBackup": {"name": backup_name}} | ({"fenced": True} if fenced else {}),
    }
    try:
        spec = Spec.model_validate({key: value for key, value in fields.items() if value})
    except ValidationError as error:
        raise Invalid(f"the session would be invalid: {describe_error(error)}") from None
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }


def age_warning(backup: Manifest, now: datetime) -> str | None:
    """Return what to expect of a login whose copy is old."""
    taken_at = formatting.backup_status_of(backup).taken_at
    if taken_at is None or now - taken_at < OLD:
        return None
    return (
        f"the copy is {formatting.since(taken_at, now)} old: WhatsApp's encryption has moved on "
        "since, so some messages of that time cannot be read, here or by those who get them"
    )


def view_of_backup(backup: Manifest) -> Waiting | End:
    """Return how far a backup is."""
    name, session = backup["metadata"]["name"], formatting.session_of_backup(backup)
    status = formatting.backup_status_of(backup)
    phase = status.phase or BackupPhase.PENDING
    state = f"backup {name} is {phase}" + (f": {status.message}" if status.message else "")
    match phase:
        case BackupPhase.COMPLETED:
            return End(state, Exit.OK)
        case BackupPhase.FAILED:
            return End(f"{state}\n{advice.next_backup_step(session, status)}", Exit.ERROR)
        case _ if status.message:
            return Waiting(f"{state}\n{advice.next_backup_step(session, status)}")
        case _:
            return Waiting(state)


def view_of_import(backup: Manifest) -> Waiting | End:
    """Return how far an import is; at its end, how to go on."""
    view = view_of_backup(backup)
    if isinstance(view, Waiting) or view.exit is not Exit.OK:
        return view
    metadata, session = backup["metadata"], formatting.session_of_backup(backup)
    command = f"kubectl wasession -n {metadata['namespace']} restore {metadata['name']}"
    return End(
        f"{view.message}\nWith the Secret {IDENTITY_SECRET_NAME} in this namespace, restore it: "
        f"{command} --as {session}",
        Exit.OK,
    )


def view_of_restoration(session: Manifest) -> Waiting | End:
    """Return how far a session is that begins with a backup."""
    name, status = session["metadata"]["name"], formatting.status_of(session)
    degraded = status.condition(ConditionType.DEGRADED)
    ready = status.condition(ConditionType.READY)
    bootstrap = status.bootstrap
    if bootstrap is not None and bootstrap.state is BootstrapState.SKIPPED:
        step = advice.BY_REASON[Reason.BOOTSTRAP_SKIPPED]
        return End(f"the backup was not restored into session {name}\n{step}", Exit.NOT_READY)
    if status.phase is Phase.READY:
        return End(f"session {name} is Ready", Exit.OK)
    stalled = degraded is not None and degraded.status == "True"
    cause = degraded if stalled else ready
    message = (cause.message or cause.reason) if cause is not None else ""
    state = f"session {name} is {status.phase or Phase.PENDING}" + (
        f": {message}" if message else ""
    )
    step = advice.next_step(name, status)
    if status.phase in STALLED or (stalled and degraded is not None and degraded.reason in BLOCKED):
        return End(f"{state}\n{step}", Exit.NOT_READY)
    return Waiting(f"{state}\n{step}" if stalled else state)
