"""Settings from environment variables (prefix ``WASESSION_``)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from wasession_api.base import Duration


class NodeLost(StrEnum):
    """What to do with a terminating pod whose node has not answered for ``node_lost_after``."""

    WAIT = "Wait"
    FORCE_DELETE = "ForceDelete"


def _split(value: object) -> object:
    return (
        [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
    )


class Settings(BaseSettings):
    """Read once at startup. Durations are written as ``30s``, ``5m``, ``1h``."""

    model_config = SettingsConfigDict(env_prefix="WASESSION_", frozen=True)

    session_image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespaces: Annotated[list[str], NoDecode, BeforeValidator(_split)] = []
    watch_nodes: bool = True
    restoration_delay: Duration = timedelta(seconds=5)
    node_lost: NodeLost = NodeLost.WAIT
    node_lost_after: Duration = timedelta(minutes=5)
    max_concurrent_starts: int = Field(20, ge=1)
    max_concurrent_updates: int = Field(1, ge=1)
    update_min_ready: Duration = timedelta(seconds=30)
    cleanup_interval: Duration = Field(timedelta(minutes=10), ge=timedelta(seconds=1))
    quarantine_retention: Duration = timedelta(days=30)
    log_format: Literal["json", "text"] = "json"
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: str(v).upper())
    ] = "INFO"
    http_port: int = 8080
