"""Settings from environment variables with the prefix ``WASESSION_``; durations in seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json
from wasession_api.v1alpha1 import (
    ClientId,
    Origin,
    PairingMethod,
    PhoneNumber,
    Presence,
    Sandbox,
    Takeover,
)

PREFIX = "WASESSION_"
S = TypeVar("S", bound="VolumeSettings")
DEVELOPMENT_WA_JS = (
    Path(__file__).parents[2] / "bridge/node_modules/@wppconnect/wa-js/dist/wppconnect-wa.js"
)


def normalize_origin(origin: str) -> str:
    """Return an origin as ``location.origin`` has it: lowercase, without the default port."""
    return re.sub(r"^(https(?=.*:443$)|http(?=.*:80$))(.*):[0-9]+$", r"\1\2", origin.lower())


def _parse_list(value: Any) -> Any:
    """Return what a variable's JSON stands for."""
    try:
        return from_json(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a list in JSON") from None


SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Traceparent = Annotated[str, Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
Texts = Annotated[list[str], BeforeValidator(_parse_list)]


class VolumeSettings(BaseModel):
    """Whose the volume is, and where.

    Not one of ``pydantic-settings``, which takes 6 MiB in each session pod.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: ClientId
    namespace: str | None = None
    session: str | None = None
    session_uid: str | None = None
    owner: str | None = None  # of the session; empty when it has none
    previous_owners: Texts = []  # which the volume may record instead
    data_dir: Path = Path("/var/lib/wasession")
    minimum_free_bytes: int = Field(100 * 2**20, ge=0)


class Settings(VolumeSettings):
    """Read once at start; an invalid value ends the process with a message."""

    token: Annotated[SecretStr, Field(min_length=1)] | None = None
    token_file: Path | None = None
    host: str | None = None  # listens on all addresses of both IP families when None
    port: int = Field(8080, ge=1, le=65535)
    whatsapp_url: Annotated[Origin, AfterValidator(normalize_origin)] = "https://web.whatsapp.com"
    device_name: str | None = None
    takeover: Takeover = Takeover.NEVER
    presence: Presence = Presence.UNAVAILABLE
    pairing_method: PairingMethod = PairingMethod.QR_CODE
    phone_number: PhoneNumber | None = None
    max_rounds: int = Field(5, ge=1)
    restoring: bool = False
    traceparent: Traceparent | None = Field(
        None, description="The trace that the pod's start is a part of."
    )
    restart: str | None = Field(None, description="The request for a restart that this is.")
    initialization_timeout: float = Field(120, gt=0)
    shutdown_timeout: float = Field(30, gt=0)
    logout_timeout: float = Field(30, gt=0)
    answer_timeout: float = Field(
        10, gt=0, description="After how long without an answer a page counts as hung."
    )
    reconnect_initial_delay: float = Field(2, gt=0)
    reconnect_max_delay: float = Field(300, gt=0)
    user_agent: str | None = None
    locale: str | None = None
    timezone: str | None = None
    extra_args: Texts = []
    sandbox: Sandbox = Sandbox.AUTO
    live_view: bool = Field(
        False, description="Whether the page can be looked at: screenshots and screencasts."
    )
    proxy_directory: Path | None = Field(None, description="A Secret's files, by its keys.")
    delivery_secret: Path = Field(
        Path("/etc/wasession-delivery"),
        description="A Secret's files: keys of webhooks, logins of sinks.",
    )
    ca_bundle: Path | None = None
    chromium: Path = Path("/usr/bin/chromium")
    wa_js: Path = DEVELOPMENT_WA_JS
    wa_js_sha256: SHA256 | None = Field(None, description="None for the image's own, unchecked.")
    document: Path | None = Field(None, description="Replaces the document of WhatsApp Web.")
    document_sha256: SHA256 | None = None
    memory_limit_bytes: int | None = Field(
        None, ge=1, description="Replaces the container's limit."
    )
    snapshot_interval: float = Field(3600, gt=0)
    quarantine_retention: float = Field(
        30 * 86400,
        ge=0,
        description="How long to retain quarantined profiles; 0 retains them forever.",
    )
    event_retention: float = Field(7 * 86400, gt=0, description="How long the outbox keeps events.")
    event_maximum_bytes: int = Field(
        64 * 2**20, ge=2**20, description="Size of the events that the outbox keeps at most."
    )
    send_timeout: float = Field(60, gt=0)
    maximum_media_bytes: int = Field(64 * 2**20, ge=1)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("set exactly one of WASESSION_TOKEN and WASESSION_TOKEN_FILE")
        if self.pairing_method is PairingMethod.PAIRING_CODE and self.phone_number is None:
            raise ValueError("WASESSION_PAIRING_METHOD=PairingCode requires WASESSION_PHONE_NUMBER")
        if (self.document is None) != (self.document_sha256 is None):
            raise ValueError("WASESSION_DOCUMENT and WASESSION_DOCUMENT_SHA256 require each other")
        if self.reconnect_initial_delay > self.reconnect_max_delay:
            raise ValueError(
                "WASESSION_RECONNECT_INITIAL_DELAY must not exceed WASESSION_RECONNECT_MAX_DELAY"
            )
        return self

    @property
    def bearer(self) -> str:
        """The bearer token that clients must present, read from the file each time.

        So a rotated Secret takes effect at once. Raises ``OSError``.
        """
        if self.token is not None:
            return self.token.get_secret_value()
        assert self.token_file is not None
        token = self.token_file.read_text().strip()
        if not token:
            raise OSError(f"{self.token_file} is empty")
        return token

    @property
    def profile(self) -> Path:
        """Chromium's profile, which contains the login."""
        return self.data_dir / f"session-{self.client_id}"


def read() -> Settings:
    """Return the settings; raise ``ValueError`` with a message that names each invalid one.

    Unknown settings are ignored, except those of a proxy: without it the session would show its
    own address.
    """
    for name in unknown_variables(os.environ):
        if name.startswith(f"{PREFIX}PROXY_"):
            raise ValueError(
                f"{name}: not a setting; WASESSION_PROXY_DIRECTORY names a directory with the "
                "proxy's files server, username and password"
            )
    settings = read_as(Settings)
    try:
        settings.bearer  # noqa: B018 - fail at start, not at the first request
    except OSError as error:
        raise ValueError(f"WASESSION_TOKEN_FILE: {error.strerror or error}") from None
    return settings


def read_as(model: type[S]) -> S:
    """Return those settings that a model has; raise ``ValueError`` like ``read``."""
    try:
        return model.model_validate(
            {
                name: os.environ[variable]
                for name in model.model_fields
                if (variable := _variable(name)) in os.environ
            }
        )
    except ValidationError as error:
        raise ValueError("; ".join(map(_describe_error, error.errors()))) from None


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return the variables with the prefix that are not settings."""
    known = set(map(_variable, Settings.model_fields))
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def _describe_error(error: ErrorDetails) -> str:
    """Return what is wrong with a setting, without its value, which may be a secret."""
    message = error["msg"].removeprefix("Value error, ")
    return f"{_variable(str(error['loc'][0]))}: {message}" if error["loc"] else message
