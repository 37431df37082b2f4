"""Settings that would do harm are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from wasession_operator.settings import GatewayKey, Settings


@pytest.mark.parametrize("store", ["file:///tmp", "bucket", "s3://", "s3://a b"])
def test_what_is_no_store_of_backups_is_refused(store: str) -> None:
    with pytest.raises(ValidationError, match="backup_store"):
        Settings.model_validate({"session_image": "session-pod:1", "backup_store": store})


def test_without_a_store_there_are_no_backups() -> None:
    settings = Settings.model_validate({"session_image": "session-pod:1", "backup_store": ""})
    assert settings.backup_store is None


def test_a_resync_without_a_pause_is_refused() -> None:
    with pytest.raises(ValidationError, match="cleanup_interval"):
        Settings.model_validate({"session_image": "session-pod:1", "cleanup_interval": "0s"})


def settings(**values: str) -> Settings:
    return Settings.model_validate({"session_image": "session-pod:1", **values})


def test_the_gateways_keys() -> None:
    assert settings().gateway_keys == []
    assert settings(gateway_keys="").gateway_keys == []
    assert settings(gateway_keys="a=b/c, team-a=ops/key.of-a,").gateway_keys == [
        GatewayKey("a", "b", "c"),
        GatewayKey("team-a", "ops", "key.of-a"),
    ]


@pytest.mark.parametrize("value", ["a", "a=b", "a=/c", "=b/c", "a=b/c/d", "a=b/c d=e/f", "A=b/c"])
def test_invalid_gateways_keys_are_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="sessions namespace"):
        settings(gateway_keys=value)


def test_the_user_of_the_pods() -> None:
    assert settings().run_as_user == 10001
    assert settings(run_as_user="").run_as_user is None
    assert settings(run_as_user="2000").run_as_user == 2000
    for root in ("0", "-1", "root"):
        with pytest.raises(ValidationError, match="run_as_user"):
            settings(run_as_user=root)
