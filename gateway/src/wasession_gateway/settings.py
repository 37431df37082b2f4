"""Settings from environment variables: ``JWT_SECRET``, and those with the prefix ``WASESSION_``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from wasession_api.base import Duration
from wasession_api.v1alpha1 import Spec
from wasession_api.v1alpha1.spec import Origin

MINIMUM_SECRET = 32  # bytes; what HS256 requires (RFC 7518, 3.2)
DEVELOPMENT_CLIENT = (
    Path(__file__).parents[2] / "client/node_modules/socket.io-client/dist/socket.io.esm.min.js"
)
SET_BY_GATEWAY = {"client_id", "owner", "suspend"}


def _split_commas(value: object) -> object:
    return (
        [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
    )


OneLine = Annotated[str, StringConstraints(min_length=1)]


class Settings(BaseSettings):
    """Read once at start. Durations are written like ``30s``, ``5m`` or ``1h``."""

    model_config = SettingsConfigDict(env_prefix="WASESSION_", frozen=True, env_ignore_empty=True)

    namespace: OneLine
    session_key_file: Path = Path("/etc/wasession/session-key")
    jwt_secret: SecretStr | None = Field(None, validation_alias="JWT_SECRET")
    jwks_url: HttpUrl | None = None
    jwt_audience: OneLine | None = None
    jwt_issuer: OneLine | None = None
    jwt_leeway: Duration = timedelta(seconds=30)  # between the issuer's clock and the gateway's
    cors_origins: Annotated[list[Origin], NoDecode, BeforeValidator(_split_commas)] = []
    # Number of proxies in front that each append to X-Forwarded-For: as many entries, from its end,
    # can be trusted.
    trusted_proxies: int = Field(0, ge=0, le=10)

    allow_create: bool = True
    max_sessions_per_owner: int = Field(10, ge=1)
    session_template: Spec = Spec()
    restore_timeout: Duration = timedelta(seconds=60)
    wake_timeout: Duration = timedelta(seconds=60)
    max_upload: int = Field(64 * 2**20, ge=0)  # bytes

    # Requests per second on average, and how many may come at once.
    subject_rate: float = Field(20, gt=0)
    subject_burst: int = Field(100, ge=1)
    address_rate: float = Field(100, gt=0)
    address_burst: int = Field(500, ge=1)
    max_connections_per_address: int = Field(1000, ge=1)

    socket_io_client: Path = DEVELOPMENT_CLIENT  # for the console
    host: str | None = None  # listens on all addresses when None
    port: int = 8080
    management_port: int = 8081
    # How long load balancers may go on sending requests after the gateway has become not ready.
    drain_delay: Duration = timedelta(seconds=5)
    shutdown_timeout: Duration = timedelta(seconds=15)
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: str(v).upper())
    ] = "INFO"

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        value = secret.get_secret_value() if secret is not None else None
        if value is not None and len(value.encode()) < MINIMUM_SECRET:
            raise ValueError(f"must have at least {MINIMUM_SECRET} bytes")
        # Neither stripped nor used as it is: either may differ from what the tokens' signer uses.
        if value is not None and value != value.strip():
            raise ValueError(
                "must not begin or end with white space: "
                "create the Secret without a newline at its end (echo -n, --from-literal)"
            )
        return secret

    @field_validator("session_template")
    @classmethod
    def _no_individual_fields(cls, template: Spec) -> Spec:
        if individual := template.model_fields_set & SET_BY_GATEWAY:
            raise ValueError(f"differs between sessions: {', '.join(sorted(individual))}")
        return template

    @model_validator(mode="after")
    def _can_verify(self) -> Self:
        if self.jwt_secret is None and self.jwks_url is None:
            raise ValueError("JWT_SECRET or WASESSION_JWKS_URL is required")
        if self.jwks_url is not None and self.jwt_audience is None:
            raise ValueError(
                "WASESSION_JWT_AUDIENCE is required with WASESSION_JWKS_URL: without it, tokens "
                "that the issuer has signed for other applications would be accepted"
            )
        return self


def load() -> Settings:
    """Return the settings, or end the process with a message that names the wrong variables.

    The message does not repeat their values, which may be secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit(
            f"invalid settings: {'; '.join(map(_describe, error.errors(include_input=False)))}"
        ) from None


def _describe(error: ErrorDetails) -> str:
    name = "_".join(map(str, error["loc"])).upper()
    variable = name if name == "JWT_SECRET" else f"WASESSION_{name}"
    return f"{variable if name else ''}: {error['msg']}".removeprefix(": ")
