"""What the process is told by its environment (prefix ``WASESSION_``). Durations are in seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple, Self
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from wasession_api.base import pattern_message
from wasession_api.v1alpha1 import PairingMethod, Takeover

DEVELOPMENT_WA_JS = (
    Path(__file__).parents[2] / "bridge/node_modules/@wppconnect/wa-js/dist/wppconnect-wa.js"
)


def as_browsers_write(origin: str) -> str:
    """An origin as ``location.origin`` has it: in small letters, without the scheme's own port."""
    return re.sub(r"^(https(?=.*:443$)|http(?=.*:80$))(.*):[0-9]+$", r"\1\2", origin.lower())


class Credentials(NamedTuple):
    username: str
    password: str


class Settings(BaseSettings):
    """Read once at start; a wrong value ends the process with a sentence."""

    model_config = SettingsConfigDict(env_prefix="WASESSION_", frozen=True)

    client_id: Annotated[
        str,
        StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$"),
        pattern_message("1 to 64 letters, digits, _ and -"),
    ]
    session_uid: str | None = None
    token: Annotated[SecretStr, Field(min_length=1)] | None = None
    token_file: Path | None = None
    data_dir: Path = Path("/var/lib/wasession")
    host: str = "0.0.0.0"  # noqa: S104 - a pod's server is reached from other pods
    port: int = Field(8080, ge=1, le=65535)
    whatsapp_url: Annotated[
        str,
        StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"),
        pattern_message("an origin such as https://web.whatsapp.com, without a path"),
        AfterValidator(as_browsers_write),
    ] = "https://web.whatsapp.com"
    device_name: str | None = None
    takeover: Takeover = Takeover.NEVER
    pairing_method: PairingMethod = PairingMethod.QR_CODE
    phone_number: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[1-9][0-9]{6,14}$"),
            pattern_message("country code and number in digits only, such as 15551234567"),
        ]
        | None
    ) = None
    max_rounds: int = Field(5, ge=1)
    restoring: bool = False
    initialization_timeout: float = Field(120, gt=0)
    shutdown_timeout: float = Field(30, gt=0)
    logout_timeout: float = Field(30, gt=0)
    answer_timeout: float = Field(
        10, gt=0, description="A page that says nothing for so long is taken for hung."
    )
    reconnect_initial_delay: float = Field(2, gt=0)
    reconnect_max_delay: float = Field(300, gt=0)
    user_agent: str | None = None
    locale: str | None = None
    timezone: str | None = None
    extra_args: list[str] = []
    proxy_server: str | None = None
    proxy_username: str | None = None
    proxy_password: SecretStr | None = None
    chromium: Path = Path("/usr/bin/chromium")
    wa_js: Path = DEVELOPMENT_WA_JS
    memory_limit_bytes: int | None = Field(
        None, ge=1, description="Instead of the container's own limit."
    )
    minimum_free_bytes: int = Field(100 * 2**20, ge=0)
    snapshot_interval: float = Field(3600, gt=0)
    aside_keep: float = Field(
        30 * 86400,
        ge=0,
        description="How long a profile that was moved aside is kept; 0 is for ever.",
    )
    send_timeout: float = Field(60, gt=0)
    maximum_media_bytes: int = Field(64 * 2**20, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("exactly one of WASESSION_TOKEN and WASESSION_TOKEN_FILE is needed")
        if self.pairing_method is PairingMethod.PAIRING_CODE and self.phone_number is None:
            raise ValueError(
                "WASESSION_PHONE_NUMBER is needed with WASESSION_PAIRING_METHOD=PairingCode"
            )
        if self.reconnect_initial_delay > self.reconnect_max_delay:
            raise ValueError(
                "WASESSION_RECONNECT_INITIAL_DELAY must not be more than WASESSION_RECONNECT_MAX_DELAY"
            )
        if self.proxy_credentials is not None and self.proxy_address.startswith("socks"):
            raise ValueError(
                "Chromium gives a SOCKS proxy no username and password: WASESSION_PROXY_SERVER must be an HTTP proxy"
            )
        return self

    @property
    def bearer(self) -> str:
        """The token that callers must show; read anew each time, so that a changed Secret counts. Raises ``OSError``."""
        if self.token is not None:
            return self.token.get_secret_value()
        assert self.token_file is not None
        token = self.token_file.read_text().strip()
        if not token:
            raise OSError(f"{self.token_file} is empty")
        return token

    @property
    def proxy_address(self) -> str:
        """The proxy without what only it may know; empty when there is none."""
        scheme, separator, rest = (self.proxy_server or "").rpartition("://")
        return scheme + separator + rest.rpartition("@")[2]

    @property
    def proxy_credentials(self) -> Credentials | None:
        """Username and password, also when they are part of the proxy's URL."""
        if self.proxy_username is not None:
            return Credentials(
                self.proxy_username,
                self.proxy_password.get_secret_value() if self.proxy_password else "",
            )
        inside, at, _ = (self.proxy_server or "").rpartition("://")[2].rpartition("@")
        username, _, password = inside.partition(":")
        return Credentials(unquote(username), unquote(password)) if at else None

    @property
    def profile(self) -> Path:
        """Chromium's profile, which is the login."""
        return self.data_dir / f"session-{self.client_id}"


def read() -> Settings:
    """The settings, from the environment; raises ``ValueError`` with a sentence that names each wrong one."""
    try:
        settings = Settings()
        settings.bearer  # noqa: B018 - a token that can't be read would be noticed by the first caller only
    except ValidationError as error:
        raise ValueError("; ".join(_words(details) for details in error.errors())) from None
    except SettingsError as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise ValueError(f"WASESSION_TOKEN_FILE: {error.strerror or error}") from None
    return settings


def unknown(environment: Iterable[str]) -> list[str]:
    """Variables that look like settings and are none."""
    known = {f"WASESSION_{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name for name in environment if name.startswith("WASESSION_") and name not in known
    )


def _words(error: ErrorDetails) -> str:
    """What is wrong with one setting. Its value is not repeated: it may be a secret."""
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    name, words = str(error["loc"][0]), error["msg"]
    if error["type"] == "string_pattern_mismatch":
        schema = Settings.model_json_schema()["properties"][name]
        described = next(
            part for part in (schema, *schema.get("anyOf", [])) if "x-pattern-message" in part
        )
        words = f"Must be {described['x-pattern-message']}"
    return f"WASESSION_{name.upper()}: {words}"
