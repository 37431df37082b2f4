"""Names, labels and annotations of the objects that belong to a session."""

from __future__ import annotations

import hashlib
import re

from wasession_api.v1alpha1 import GROUP

FINALIZER = f"{GROUP}/session"
BACKUP_FINALIZER = f"{GROUP}/backup"
LABEL_SCHEDULED = f"{GROUP}/scheduled"  # of a backup that the operator has created; "true"
LABEL_SESSION = f"{GROUP}/session"
LABEL_OWNER = f"{GROUP}/owner"
LABEL_CLASS = f"{GROUP}/class"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABELS = (LABEL_NAME, LABEL_MANAGED_BY, LABEL_SESSION, LABEL_OWNER, LABEL_CLASS)
MANAGED_BY = "wasession-operator"
APP_NAME = "wasession-session"
SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
ANNOTATION_CLIENT_ID = f"{GROUP}/client-id"
ANNOTATION_OWNER = LABEL_OWNER  # in full; the label may hold a hash of it
ANNOTATION_CLASS = LABEL_CLASS  # of a pod: the class that it was created for
ANNOTATION_LOGIN_ID = f"{GROUP}/login-id"  # of a claim: of the login on its volume
ANNOTATION_PREVIOUS_OWNERS = f"{GROUP}/previous-owners"  # of a claim; a JSON list
ANNOTATION_TEMPLATE_HASH = f"{GROUP}/template-hash"
ANNOTATION_TEMPLATE_METADATA = f"{GROUP}/template-metadata"
ANNOTATION_REVISION = f"{GROUP}/revision"  # of a pod: of what its class decides of it
ANNOTATION_OWN_SPEC = f"{GROUP}/own-spec"  # hash of what the session itself sets of its pod
ANNOTATION_RESTART = f"{GROUP}/restart"
ANNOTATION_LOGOUT = f"{GROUP}/logout"
ANNOTATION_WAKE = f"{GROUP}/wake"
ANNOTATION_ROTATE_TOKEN = f"{GROUP}/rotate-token"
ANNOTATION_TOKEN_ID = f"{GROUP}/token-id"
ANNOTATION_EXPECTS_LOGIN = f"{GROUP}/expects-login"
ANNOTATION_ACCEPT_UPDATE = f"{GROUP}/accept-update"
ANNOTATION_ACCEPT_DATA_LOSS = f"{GROUP}/accept-data-loss"
ANNOTATION_RESUME_ROLLOUT = f"{GROUP}/resume-rollout"  # of a class
ANNOTATION_DEFAULT_CLASS = f"{GROUP}/is-default-class"  # of a class; "true"
ANNOTATION_BACKUP = f"{GROUP}/backup"  # of a VolumeSnapshot: the backup that it was taken for
ANNOTATION_ABANDON_ARCHIVE = f"{GROUP}/abandon-archive"  # of a deleted backup; "true"
ANNOTATIONS_OF_SESSION = (  # that the operator reads
    ANNOTATION_RESTART,
    ANNOTATION_LOGOUT,
    ANNOTATION_WAKE,
    ANNOTATION_ROTATE_TOKEN,
    ANNOTATION_EXPECTS_LOGIN,
    ANNOTATION_ACCEPT_UPDATE,
    ANNOTATION_ACCEPT_DATA_LOSS,
)

_HASHED = re.compile(r".*--[0-9a-f]{10}")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_MAXIMUM = 63
_MAXIMUM_REQUEST = 128  # characters; requests are noted in pods, Secrets and statuses


def object_name(session: str) -> str:
    """Return the name of the session's pod and PVC: a DNS label, unique per session."""
    return _dns_label("wasession-", session)


def token_secret_name(session: str) -> str:
    """Return the name of the Secret with the session's tokens: a DNS label, unique per session.

    No session can use it as its proxy's Secret: the names of those begin with wasession-proxy-.
    """
    return _dns_label("wasession-token-", session)


def snapshot_name(backup_uid: str) -> str:
    """Return the name of a backup's VolumeSnapshot: no two backups have the same."""
    return f"wasession-{backup_uid}"


def _dns_label(prefix: str, session: str) -> str:
    name = f"{prefix}{session}"
    if len(name) <= _MAXIMUM and _DNS_LABEL.fullmatch(name) and not _HASHED.fullmatch(name):
        return name
    readable = re.sub(r"[^a-z0-9-]", "-", name)[: _MAXIMUM - 12].rstrip("-")
    return f"{readable}--{_digest(session)}"


def label_value(text: str) -> str:
    """Return the text if it is a valid label value, else a hash of it."""
    return text if _LABEL_VALUE.fullmatch(text) else f"sha256-{_digest(text)}"


def request_id(value: str) -> str:
    """Return what identifies a request by annotation: its value, or a hash of a long one."""
    if len(value) <= _MAXIMUM_REQUEST:
        return value
    return f"sha256-{hashlib.sha256(value.encode()).hexdigest()}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
