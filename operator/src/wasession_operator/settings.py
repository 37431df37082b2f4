"""Settings from environment variables (prefix ``WASESSION_``)."""

from __future__ import annotations

import platform
import re
import secrets
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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


class GatewayKey(NamedTuple):
    """Where the key of a namespace's session tokens goes, for the gateway of these sessions."""

    sessions_namespace: str
    secret_namespace: str
    secret_name: str


_GATEWAY_KEY = re.compile(r"([a-z0-9-]+)=([a-z0-9-]+)/([a-z0-9.-]+)")


def _parse_gateway_keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    entries = [part.strip() for part in value.split(",") if part.strip()]
    parsed = [_GATEWAY_KEY.fullmatch(entry) for entry in entries]
    if None in parsed:
        raise ValueError("must be a list of <sessions namespace>=<namespace>/<secret name>")
    return [GatewayKey(*match.groups()) for match in parsed if match is not None]


def _unique_name() -> str:
    return f"{platform.node()}-{secrets.token_hex(4)}"


class Settings(BaseSettings):
    """Read once at startup. Durations are written as ``30s``, ``5m``, ``1h``."""

    model_config = SettingsConfigDict(env_prefix="WASESSION_", frozen=True)

    session_image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespaces: Annotated[list[str], NoDecode, BeforeValidator(_split)] = []
    watch_nodes: bool = True
    master_key_file: Path = Path("/etc/wasession/master-key")  # at least 32 bytes in base64
    gateway_keys: Annotated[list[GatewayKey], NoDecode, BeforeValidator(_parse_gateway_keys)] = []
    # User and group of the session pods; empty: the platform assigns them.
    run_as_user: Annotated[
        Annotated[int, Field(ge=1)] | None, BeforeValidator(lambda v: None if v == "" else v)
    ] = 10001
    # Namespace and name: identifies this operator among several ones, in the status of classes and
    # by its Leases, which are in that namespace and have names that begin with that name.
    operator_name: str = Field(
        "default/wasession-operator", pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$", max_length=128
    )
    # Identifies this replica: holder of its Leases. A restarted one with the same name takes its
    # own Leases over at once, so no two that run at the same time may have the same.
    pod_name: str = Field(default_factory=_unique_name, min_length=1, max_length=253)
    pod_uid: str = ""  # of the Pod that this replica is, if it is one
    shards: int = Field(1, ge=1, le=64)  # parts of the sessions, which the replicas share out
    # Without a renewal for as long, another replica takes a shard over.
    lease_duration: Duration = Field(timedelta(seconds=10), ge=timedelta(seconds=1))
    network_policy_enabled: bool = True
    # Who can connect to session pods: NetworkPolicyPeers of networking.k8s.io/v1; empty: nobody.
    network_policy_peers: list[dict[str, Any]] = []
    restoration_delay: Duration = timedelta(seconds=5)
    node_lost: NodeLost = NodeLost.WAIT
    node_lost_after: Duration = timedelta(minutes=5)
    max_concurrent_starts_per_node: int = Field(10, ge=1)
    max_concurrent_starts_per_zone: int = Field(50, ge=1)
    max_concurrent_updates: int = Field(1, ge=1)
    update_min_ready: Duration = timedelta(seconds=30)
    # Where archives of backups go, such as s3://bucket/prefix. Credentials and the endpoint come
    # from the usual variables of the store, such as AWS_ACCESS_KEY_ID.
    backup_store: Annotated[
        Annotated[str, Field(pattern=r"^(s3|gs|az)://[^/\s]+(/\S*)?$")] | None,
        BeforeValidator(lambda v: None if v == "" else v),
    ] = None
    backup_sync_interval: Duration = Field(timedelta(minutes=10), ge=timedelta(seconds=1))
    max_concurrent_backups: int = Field(4, ge=1)  # of this replica
    # The OTEL_* variables of session pods, as a JSON object. A change replaces the pods.
    session_tracing: dict[Annotated[str, Field(pattern=r"^OTEL_[A-Z0-9_]+$")], str] = {}
    cleanup_interval: Duration = Field(timedelta(minutes=10), ge=timedelta(seconds=1))
    quarantine_retention: Duration = timedelta(days=30)
    log_format: Literal["json", "text"] = "json"
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: str(v).upper())
    ] = "INFO"
    http_port: int = 8080
    # Sessions of this replica with metrics of their own.
    max_session_series: int = Field(1000, ge=0)
