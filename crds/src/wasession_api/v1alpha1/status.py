"""``status``: the observed state of a session, written by the operator alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from wasession_api.base import Observed, Time, clip, fallback
from wasession_api.v1alpha1.enums import (
    AccountStatus,
    AuthState,
    BootstrapState,
    ConditionType,
    DeliveryState,
    DisconnectKind,
    PairingMethod,
    Phase,
)


class Condition(Observed):
    """A condition, as in metav1.Condition."""

    type: ConditionType = Field(description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Status of the condition.")
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)] = (
        Field(description="Reason for the status in CamelCase.")
    )
    message: Annotated[str, clip(1024)] = Field(
        "", description="Explanation of the status.", max_length=1024
    )
    last_transition_time: Time = Field(description="When the status changed last.")
    observed_generation: int | None = Field(
        None, description="Generation of the session that the condition refers to."
    )


class LastDisconnect(Observed):
    """The last loss of the connection to WhatsApp."""

    at: Time = Field(description="When the connection was lost.")
    kind: Annotated[DisconnectKind, fallback(DisconnectKind.CONNECTION)] = Field(
        description="Cause. Only a Logout is permanent; after the others the session reconnects."
    )
    reason: Annotated[str, clip(256)] = Field(
        description="Cause as WhatsApp or the browser names it.", max_length=256
    )


class Account(Observed):
    """The linked WhatsApp account."""

    id: str = Field(description="WhatsApp ID, such as 15551234567@c.us.", max_length=128)
    push_name: Annotated[str, clip(256)] | None = Field(
        None, description="Display name of the account.", max_length=256
    )
    platform: Annotated[str, clip(64)] | None = Field(
        None, description="Platform of the phone, such as android.", max_length=64
    )


class WaJS(Observed):
    """The wa-js that the page gets."""

    version: Annotated[str, clip(64)] | None = Field(
        None, description="Version that it names itself.", max_length=64
    )
    sha256: str = Field(description="SHA-256 of the script, in hexadecimal.", max_length=64)


class PinnedDocument(Observed):
    """The document that the session uses in place of the one that WhatsApp Web serves."""

    sha256: str = Field(description="SHA-256 of the document, in hexadecimal.", max_length=64)
    since: Time = Field(description="When the session's pod first reported it.")


class PairingStatus(Observed):
    """Whether a phone can be linked now. Never the code: whoever reads it can take the account."""

    available: bool = Field(description="Whether the session pod has a code to show.")
    method: PairingMethod = Field(description="Kind of code.")
    attempt: int = Field(ge=0, description="Number of the round of codes, from 1.")
    expires_at: Time | None = Field(None, description="When the current code expires.")


class LastShutdown(Observed):
    """The last shutdown of the session pod."""

    at: Time = Field(description="When the session pod shut down.")
    graceful: bool = Field(description="Whether the browser closed and wrote its profile.")


class Restarts(Observed):
    """Restarts of the session's pod and container."""

    count: int = Field(0, ge=0, description="Number of restarts in the session's lifetime.")
    last: Time | None = Field(None, description="Time of the last restart.")
    reason: str | None = Field(None, description="Reason of the last restart.", max_length=64)
    container: int = Field(
        0,
        ge=0,
        description="Restarts of the current pod's container; included in count.",
    )


class LogoutStatus(Observed):
    """The last logout requested with the annotation wasession.dev/logout."""

    request: str = Field(
        description="Value of the annotation, or a hash of a long one.", max_length=256
    )
    at: Time = Field(description="When the operator accepted the request.")
    done: bool = Field(False, description="Whether the login has ended, or there was none.")


class VolumeLoss(Observed):
    """The loss of a volume that held a valid login, until the login or another claim is there."""

    nonce: str = Field(
        description="Value of the annotation wasession.dev/accept-data-loss that accepts this loss.",
        max_length=64,
    )
    pvc_uid: str | None = Field(
        None, alias="pvcUID", description="UID of the lost PersistentVolumeClaim."
    )
    at: Time = Field(description="When the operator noticed the loss.")


class RequestStatus(Observed):
    """The last request with an annotation."""

    request: str = Field(
        description="Value of the annotation, or a hash of a long one.", max_length=256
    )
    at: Time = Field(description="When the operator accepted the request.")
    done: bool = Field(False, description="Whether the request is fulfilled.")


class UpdateStatus(Observed):
    """The last replacement of the pod for a changed template."""

    at: Time = Field(description="When the update of the pod began.")
    revision: str | None = Field(
        None, description="Revision of its class that it was updated to.", max_length=64
    )
    was_ready: bool = Field(
        description="Whether the session was Ready with a valid login before the update."
    )
    was_valid: bool = Field(
        False, description="Whether its volume held a valid login then, Ready or not."
    )
    own: bool = Field(
        False,
        description="Whether the session's own spec had changed: such an update halts no rollout of its class.",
    )
    done: bool = Field(False, description="Whether the update has finished.")
    failed: bool = Field(
        False,
        description="Whether the session did not recover, or is not well any more, which halts the rollout.",
    )


class DeliveryStatus(Observed):
    """How the delivery to a webhook or sink is doing. Counts are metrics of the session pod."""

    name: str = Field(description="Name of the webhook or sink.", max_length=63)
    state: Annotated[DeliveryState, fallback(DeliveryState.FAILING)] = Field(
        description="Delivering; Failing since some attempts; Paused by a person; Gone when the "
        "endpoint wants no more (410), until the webhook is changed or resumed."
    )
    since: Time = Field(description="Since when the state is that.")
    error: Annotated[str, clip(256)] | None = Field(
        None, description="What is wrong with the attempts, while it is Failing.", max_length=256
    )


class BootstrapStatus(Observed):
    """What the volume began with."""

    backup_uid: str = Field(
        alias="backupUID", description="UID of the WhatsAppSessionBackup.", max_length=64
    )
    login_id: str = Field(
        alias="loginID",
        description="Identifies the login. Of all sessions with the same one, only the one that "
        "was restored last may run.",
        max_length=64,
    )
    state: BootstrapState = Field(
        description="Restoring; Restored; Skipped, as the volume was not empty; Ended, as WhatsApp "
        "has ended the restored login."
    )
    at: Time = Field(description="When the restoration began.")


class HibernationStatus(Observed):
    """The present sleep of the session."""

    since: Time = Field(description="When the session fell asleep.")
    wake_at: Time = Field(description="When it wakes if nobody asks before.")


class ClassReference(Observed):
    """The class whose values the session uses."""

    name: str = Field(description="Name of the WhatsAppSessionClass.", max_length=253)
    generation: int = Field(description="Generation of the class.")


def _known(conditions: object) -> object:
    """Drop the conditions whose types only another version knows."""
    if not isinstance(conditions, list):
        return conditions
    return [
        condition
        for condition in conditions
        if not isinstance(condition, dict) or condition.get("type") in set(ConditionType)
    ]


class Status(Observed):
    """The observed state of the session. Written by the operator alone.

    Another version may have written it: values that this one does not know count as absent.
    """

    observed_generation: int | None = Field(
        None, description="Generation of the session that this status refers to."
    )
    session_class: Annotated[ClassReference | None, fallback(None)] = Field(
        None, alias="class", description="The class whose values the session uses."
    )
    revision: str | None = Field(
        None, description="Revision of the class that the session's pod is of.", max_length=64
    )
    phase: Annotated[Phase | None, fallback(None)] = Field(
        None, description="Phase of the session's life cycle."
    )
    account_status: Annotated[AccountStatus | None, fallback(None)] = Field(
        None, description="Summary of the phase for applications."
    )
    conditions: Annotated[list[Condition], BeforeValidator(_known)] = Field(
        [], description="Conditions, one per type.", max_length=16
    )
    session_valid: bool | None = Field(
        None, description="Whether the volume holds a login that WhatsApp has not ended."
    )
    is_authenticated: bool | None = Field(None, description="Whether WhatsApp Web is logged in.")
    auth_state: Annotated[AuthState | None, fallback(None)] = Field(
        None, description="State of the connection as WhatsApp Web names it."
    )
    last_connected: Time | None = Field(None, description="When the session became Ready last.")
    last_disconnect: LastDisconnect | None = Field(
        None, description="The last loss of the connection to WhatsApp."
    )
    login_id: str | None = Field(
        None,
        alias="loginID",
        max_length=64,
        description="Identifies the login on the volume: copies of it have the same.",
    )
    restored: bool | None = Field(
        None, description="Whether the session is Ready from its stored login, without a new code."
    )
    restorations: int = Field(
        0, ge=0, description="How often the session was restored from its stored login."
    )
    account: Account | None = Field(None, description="The linked WhatsApp account.")
    last_account: Account | None = Field(
        None, description="The account that was linked before, once its login has ended."
    )
    whatsapp_web_version: Annotated[str, clip(64)] | None = Field(
        None, description="Version of WhatsApp Web.", max_length=64
    )
    wa_js: Annotated[WaJS | None, fallback(None)] = Field(
        None, alias="waJS", description="The wa-js that the page gets."
    )
    whatsapp_document: Annotated[PinnedDocument | None, fallback(None)] = Field(
        None,
        description="The document that is served in place of WhatsApp Web's present one, if any.",
    )
    replicas: int | None = Field(None, ge=0, description="Number of the session's pods: 1 or 0.")
    selector: str | None = Field(None, description="Label selector of the session's pod.")
    pod_name: str | None = Field(None, description="Name of the session's pod.")
    pod_uid: str | None = Field(None, alias="podUID", description="UID of the session's pod.")
    node_name: str | None = Field(None, description="Node that runs the pod.")
    pvc_name: str | None = Field(None, description="Name of the session's PersistentVolumeClaim.")
    pvc_uid: str | None = Field(
        None, alias="pvcUID", description="UID of the session's PersistentVolumeClaim."
    )
    pvc_capacity: str | None = Field(
        None,
        description="Capacity of the volume. spec.storage.size cannot be less.",
        max_length=32,
    )
    volume_loss: Annotated[VolumeLoss | None, fallback(None)] = Field(
        None, description="The loss of a volume with a valid login, while nobody has accepted it."
    )
    pairing: Annotated[PairingStatus | None, fallback(None)] = Field(
        None, description="Whether a phone can be linked now."
    )
    last_shutdown: LastShutdown | None = Field(
        None, description="The last shutdown of the session pod."
    )
    phone_last_seen: Time | None = Field(
        None,
        description="When the phone was online last, to the hour. After 14 days WhatsApp logs the session out.",
    )
    logout: LogoutStatus | None = Field(
        None, description="The last logout requested with the annotation wasession.dev/logout."
    )
    restart: RequestStatus | None = Field(
        None,
        description="The last restart requested with the annotation wasession.dev/restart; done when the new pod is ready.",
    )
    token_rotation: RequestStatus | None = Field(
        None,
        description="The last rotation requested with the annotation wasession.dev/rotate-token; done when the Secret has the new token.",
    )
    token_epoch: int = Field(
        0,
        ge=0,
        description="How often the token of the session's pod was rotated; the token is derived from it.",
    )
    update: UpdateStatus | None = Field(
        None, description="The last replacement of the pod for a changed template."
    )
    hibernation: Annotated[HibernationStatus | None, fallback(None)] = Field(
        None, description="The present sleep of the session, while nobody uses it."
    )
    wake: RequestStatus | None = Field(
        None,
        description="The last wake-up requested with the annotation wasession.dev/wake; done when the session is Ready.",
    )
    bootstrap: Annotated[BootstrapStatus | None, fallback(None)] = Field(
        None, description="What the volume began with, if it was restored from a backup."
    )
    last_backup: Time | None = Field(
        None, description="Of which moment the latest completed backup is."
    )
    delivery: list[DeliveryStatus] = Field(
        [], description="The webhooks and sinks that the session's pod delivers to.", max_length=16
    )
    restarts: Restarts = Field(
        default_factory=Restarts,
        description="Restarts of the session's pod and container.",
    )

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of type ``kind``, if the status has it."""
        return next((candidate for candidate in self.conditions if candidate.type is kind), None)
