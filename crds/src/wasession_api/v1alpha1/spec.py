"""``spec``: the desired state of a session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from wasession_api.base import Duration, Model, Pattern
from wasession_api.v1alpha1 import timezones
from wasession_api.v1alpha1.delivery import (
    MAXIMUM_SINKS,
    MAXIMUM_WEBHOOKS,
    Sink,
    Webhook,
    check_names,
)
from wasession_api.v1alpha1.enums import (
    AccessMode,
    BackupMethod,
    PairingMethod,
    Presence,
    Sandbox,
    Takeover,
    UpdateStrategy,
    WhenDeleted,
)
from wasession_api.v1alpha1.patterns import DNS_LABEL, HOST, LABEL_NAME, PORT

Origin = Annotated[
    str,
    StringConstraints(max_length=253),
    Pattern(
        rf"^https?://{HOST}(:{PORT})?$",
        "must be an http or https origin such as https://web.whatsapp.com, without a path",
    ),
]
# As in github.com/distribution/reference.
_IMAGE_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = Pattern(
    rf"^({HOST}(:{PORT})?/)?{_IMAGE_PATH}(/{_IMAGE_PATH})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,})?$",
    "must be a container image such as registry.example/wasession/session-pod:1.0",
)
NO_CONTROL = r"[^\x00-\x1F\x7F-\x9F]"
TEXT = Pattern(rf"^{NO_CONTROL}*$", "must not contain control characters")
HTTP_HEADER = Pattern(r"^[!-~]([ -~]*[!-~])?$", "must be one line of printable ASCII characters")
QUANTITY = Pattern(
    r"^([0-9]+(\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", "must be a quantity such as 512Mi or 1Gi"
)
LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
Quantity = Annotated[str, StringConstraints(max_length=32), QUANTITY]
# Users write `cpu: 1` as well as `cpu: "1"`.
ResourceQuantity = Annotated[
    str,
    StringConstraints(max_length=32),
    QUANTITY,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32}),
]
Name = Annotated[
    str,
    StringConstraints(max_length=253),
    Pattern(
        rf"^{DNS_LABEL}(\.{DNS_LABEL})*$",
        "must be a name of lower-case letters, digits, - and ., with a letter or digit at both ends",
    ),
]
LabelValue = Annotated[
    str,
    StringConstraints(max_length=63),
    Pattern(
        r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        "must be a label value: letters, digits, -, _ and . that begins and ends with a letter or digit",
    ),
]
PROXY_SECRET_PREFIX = "wasession-proxy-"  # noqa: S105 - a name
# Part of the names and labels of what belongs to the class in each namespace.
ClassName = Annotated[str, StringConstraints(max_length=40), LABEL_NAME]
PhoneNumber = Annotated[
    str,
    StringConstraints(max_length=32),
    Pattern(
        r"^[1-9][0-9]{6,14}$",
        "must be country code and number in digits only, such as 15551234567",
    ),
]
ClientId = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(r"^[a-zA-Z0-9_-]{1,64}$", "must be 1 to 64 letters, digits, _ and -"),
]


CronSchedule = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64),
    Pattern(
        r"^\S+( \S+){4}$",
        "must be a schedule of five fields as for cron, in UTC, such as 0 3 * * *",
    ),
]
SHORTEST_IDLE, LONGEST_SLEEP = timedelta(minutes=5), timedelta(hours=240)


class Pairing(Model):
    """How to link a phone while there is no login."""

    method: PairingMethod = Field(
        PairingMethod.QR_CODE,
        description="QRCode to scan, or PairingCode: eight characters to type on the phone.",
    )
    phone_number: PhoneNumber | None = Field(
        None,
        description="The account's phone number for a PairingCode: country code and number, digits only.",
    )
    max_rounds: int = Field(
        5,
        ge=1,
        le=100,
        description="Rounds of codes until the session waits for a request or a restart.",
    )


class Retention(Model):
    """What happens to the volume when the session is deleted."""

    when_deleted: WhenDeleted = Field(
        WhenDeleted.RETAIN,
        description="Retain keeps the volume and its login for a session of the same name, owner and clientId; Delete deletes it.",
    )


class Storage(Model):
    """The volume that stores the login."""

    size: Quantity = Field("1Gi", description="Requested size of the volume. It can only grow.")
    storage_class_name: Name | None = Field(
        None,
        description="StorageClass of the volume; the cluster's default if unset. Immutable.",
    )
    access_mode: AccessMode = Field(
        AccessMode.READ_WRITE_ONCE,
        description="With ReadWriteOncePod, scheduler and kubelet refuse a second pod too; it needs a CSI driver. Immutable.",
    )
    retention: Retention = Field(
        default_factory=Retention,
        description="What happens to the volume when the session is deleted.",
    )


class Resources(Model):
    """Resource requests and limits of the session's container."""

    requests: dict[str, ResourceQuantity] = Field(
        {"cpu": "100m", "memory": "512Mi"},
        description="Requests by resource name.",
        max_length=8,
    )
    limits: dict[str, ResourceQuantity] = Field(
        {"memory": "1Gi"}, description="Limits by resource name.", max_length=8
    )


class SecretReference(Model):
    """A Secret in the session's namespace."""

    name: Name = Field(description="Name of the Secret.")


class ProxySecretReference(Model):
    """A Secret with a proxy, in the session's namespace.

    Its name says that sessions may use it: whoever may create sessions must not be able to read
    other Secrets through them.
    """

    name: Annotated[
        str,
        StringConstraints(max_length=253),
        Pattern(
            rf"^{PROXY_SECRET_PREFIX}{DNS_LABEL}(\.{DNS_LABEL})*$",
            f"must begin with {PROXY_SECRET_PREFIX}: sessions can use no other Secrets",
        ),
    ] = Field(description=f"Name of the Secret; it begins with {PROXY_SECRET_PREFIX}.")


class Browser(Model):
    """The session's Chromium."""

    resources: Resources = Field(
        default_factory=Resources,
        description="Resource requests and limits of the session's container.",
    )
    shm_size: Quantity = Field(
        "256Mi", description="Size of /dev/shm; counts towards the memory limit."
    )
    user_agent: (
        Annotated[str, StringConstraints(min_length=1, max_length=512), HTTP_HEADER] | None
    ) = Field(
        None, description="User agent for WhatsApp Web; derived from Chromium's version if unset."
    )
    locale: (
        Annotated[
            str,
            StringConstraints(max_length=16),
            Pattern(
                r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$",
                "must be a locale such as de, en-US or zh-Hans-CN",
            ),
        ]
        | None
    ) = Field(None, description="Locale of the browser, such as en-US.")
    timezone: (
        Annotated[
            str,
            StringConstraints(max_length=64),
            Pattern(
                timezones.REGEX,
                "must be a name of the IANA time zone database, such as Europe/Berlin",
            ),
        ]
        | None
    ) = Field(None, description="Time zone of the browser, such as Europe/Berlin.")
    sandbox: Sandbox = Field(
        Sandbox.AUTO,
        description="Auto: run without the sandbox where it is not available. Required: do not "
        "start there. The condition Sandboxed shows whether Chromium has one.",
    )
    proxy_secret_ref: ProxySecretReference | None = Field(
        None,
        description="Secret of the proxy to WhatsApp: key server, and optionally username and password.",
    )
    live_view: bool = Field(
        False,
        description="Whether admins of the gateway, and whoever may read the session's Secret, can "
        "look at the page: it shows chats and, while a phone is linked, the code.",
    )


class WhatsApp(Model):
    """How the session shows up in WhatsApp."""

    device_name: Annotated[str, StringConstraints(min_length=1, max_length=50), TEXT] | None = (
        Field(None, description="Name of this device in the phone's list of linked devices.")
    )
    presence: Presence = Field(
        Presence.UNAVAILABLE,
        description="Whether the account is shown as online. While it is Available, WhatsApp may "
        "not notify the account's phone.",
    )
    takeover: Takeover = Field(
        Takeover.NEVER,
        description="Whether to take the login back when it is opened elsewhere: Never, Once (at most once an hour), or Always; at most five times in 24 hours. Otherwise the session stops its browser until it is restarted.",
    )


class Timeouts(Model):
    """Time limits."""

    initialization: Duration = Field(
        timedelta(minutes=2), description="From the browser's start to a code or to Ready."
    )
    shutdown: Duration = Field(
        timedelta(seconds=30), description="For the browser to close and write its profile."
    )
    logout: Duration = Field(
        timedelta(seconds=30), description="For WhatsApp to confirm a requested logout."
    )


class Reconnect(Model):
    """Backoff between attempts to reconnect: it doubles from initialDelay to maxDelay, with jitter."""

    initial_delay: Duration = Field(timedelta(seconds=2), description="Before the first attempt.")
    max_delay: Duration = Field(timedelta(minutes=5), description="Between later attempts.")


class Events(Model):
    """How long the volume keeps what has happened, for those who are told later."""

    retention: Duration = Field(
        timedelta(days=7), description="How long messages and other events are kept."
    )
    maximum_size: Quantity = Field(
        "64Mi", description="Size of the events that are kept at most; the oldest go first."
    )


class Backup(Model):
    """When copies of the login are made by themselves."""

    schedule: CronSchedule | None = Field(
        None, description="Schedule as for cron, in UTC, such as 0 3 * * *; none if unset."
    )
    keep: int = Field(
        7, ge=1, le=1000, description="How many completed backups of the schedule are kept."
    )
    method: BackupMethod = Field(
        BackupMethod.ARCHIVE,
        description="How the backups of the schedule are made: an encrypted Archive in the "
        "operator's store, or a VolumeSnapshot of the volume.",
    )


class HibernationSchedule(Model):
    """When the session sleeps whether or not it is idle."""

    sleep: CronSchedule = Field(description="When it falls asleep, as for cron, in UTC.")
    wake: CronSchedule = Field(description="When it wakes, as for cron, in UTC.")


class Hibernation(Model):
    """When the pod is stopped while nobody uses the session. WhatsApp keeps what comes meanwhile."""

    after_idle: Duration | None = Field(
        None,
        description="Sleep after so long without a message and with nothing left to deliver; at "
        "least 5m; never if unset.",
    )
    schedule: HibernationSchedule | None = Field(
        None, description="Sleep at these times; only afterIdle counts if unset."
    )
    wake_every: Duration = Field(
        timedelta(hours=72),
        description="Wake after so long even if nobody asks, to receive what has come; at most "
        "240h, as WhatsApp logs out devices that are away for two weeks.",
    )

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.after_idle is not None and self.after_idle < SHORTEST_IDLE:
            raise ValueError("afterIdle must be at least 5m")
        if not SHORTEST_IDLE <= self.wake_every <= LONGEST_SLEEP:
            raise ValueError("wakeEvery must be between 5m and 240h")
        return self


class BackupReference(Model):
    """A WhatsAppSessionBackup in the session's namespace."""

    name: Name = Field(description="Name of the WhatsAppSessionBackup.")


class Bootstrap(Model):
    """What a new volume begins with."""

    from_backup: BackupReference = Field(
        description="The backup whose login the new volume gets. A volume that exists is left alone."
    )
    fenced: bool = Field(
        False,
        description="A person's word that the session of the backup, which another cluster had, "
        "runs nowhere any more: two sessions with one login end each other's.",
    )


class SessionTemplate(Model):
    """What both a session and its class can set; what the session sets wins, field by field."""

    storage: Storage = Field(
        default_factory=Storage, description="The volume that stores the login."
    )
    browser: Browser = Field(default_factory=Browser, description="The session's Chromium.")
    whatsapp: WhatsApp = Field(
        default_factory=WhatsApp, description="How the session shows up in WhatsApp."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Time limits.")
    reconnect: Reconnect = Field(
        default_factory=Reconnect, description="Backoff between attempts to reconnect."
    )
    events: Events = Field(
        default_factory=Events, description="How long messages and other events are kept."
    )
    webhooks: list[Webhook] = Field(
        [],
        max_length=MAXIMUM_WEBHOOKS,
        description="Endpoints that the session's pod tells what happens.",
    )
    sinks: list[Sink] = Field(
        [],
        max_length=MAXIMUM_SINKS,
        description="Message brokers to which the session's pod tells what happens.",
    )
    backup: Backup = Field(
        default_factory=Backup, description="When copies of the login are made by themselves."
    )
    hibernation: Hibernation = Field(
        default_factory=Hibernation,
        description="When the pod is stopped while nobody uses the session.",
    )
    update_strategy: UpdateStrategy = Field(
        UpdateStrategy.ON_DELETE,
        description="When a changed pod template takes effect: at the pod's next start (OnDelete), or as "
        "soon as the rollout reaches the session (RollingUpdate).",
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_names([*self.webhooks, *self.sinks])
        return self


class Spec(SessionTemplate):
    """The desired state of the session."""

    class_name: ClassName | None = Field(
        None,
        description="WhatsAppSessionClass of the session; the cluster's default class if unset.",
    )
    replicas: int = Field(
        1, ge=1, le=1, description="Always 1, for the scale subresource; to stop it, use suspend."
    )
    client_id: ClientId | None = Field(
        None,
        description="Identifies the login on the volume; metadata.name if unset. Immutable.",
    )
    owner: Annotated[str, StringConstraints(min_length=1, max_length=253), TEXT] | None = Field(
        None,
        description="Owner of the session: the subject (sub) of the gateway's tokens. An admission "
        "policy may allow only one's own username.",
    )
    suspend: bool = Field(False, description="Stop the pod and keep the volume.")
    logout_on_delete: bool = Field(
        False, description="Log the device out of WhatsApp when the session is deleted."
    )
    pairing: Pairing = Field(
        default_factory=Pairing, description="How to link a phone while there is no login."
    )
    bootstrap: Bootstrap | None = Field(
        None, description="What a new volume begins with; empty if unset."
    )

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """Return a spec of the API server, whose CRD may be newer: unknown fields are ignored.

        Raises ``ValidationError`` for invalid values of known fields.
        """
        return cls.model_validate(stored, extra="ignore")
