"""A gateway with unusable settings does not start."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from wasession_gateway.settings import Settings

GOOD: dict[str, Any] = {"namespace": "sessions", "JWT_SECRET": "x" * 32}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"JWT_SECRET": "x" * 31}, "must have at least 32 bytes"),
        ({"JWT_SECRET": "x" * 32 + "\n"}, "must not begin or end with white space"),
        ({"JWT_SECRET": "x" * 32 + "\r\n"}, "must not begin or end with white space"),
        ({"JWT_SECRET": " " + "x" * 32}, "must not begin or end with white space"),
        ({"JWT_SECRET": None}, "JWT_SECRET or WASESSION_JWKS_URL is required"),
        (
            {"jwks_url": "https://issuer.example/keys"},
            "WASESSION_JWT_AUDIENCE is required with WASESSION_JWKS_URL",
        ),
        ({"cors_origins": "*"}, "must be an http or https origin"),
        ({"cors_origins": "https://a.example/path"}, "must be an http or https origin"),
        ({"session_template": {"owner": "alice"}}, "differs between sessions: owner"),
        ({"session_template": {"image": "x"}}, "Extra inputs are not permitted"),
        ({"namespace": ""}, "at least 1 character"),
    ],
)
def test_invalid_settings(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**{**GOOD, **wrong})


def test_good_settings() -> None:
    settings = Settings(
        **GOOD, cors_origins="https://a.example, http://localhost:3000", restore_timeout="90s"
    )
    assert settings.cors_origins == ["https://a.example", "http://localhost:3000"]
    assert "xxxx" not in repr(settings)
    keys: dict[str, Any] = {"jwks_url": "https://issuer.example/keys", "jwt_audience": "wasession"}
    assert Settings(namespace="s", **keys).jwt_secret is None


@pytest.mark.parametrize("secret", ["", "short"])
def test_the_process_ends_with_a_sentence(secret: str) -> None:
    environment = {"WASESSION_NAMESPACE": "s", "JWT_SECRET": secret}
    ended = subprocess.run(
        [sys.executable, "-m", "wasession_gateway"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert "JWT_SECRET" in ended.stderr
    assert "Traceback" not in ended.stderr
