"""Tokens for trying the gateway out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from integration.gateway.replica import SECRET
from wasession_gateway.auth import Authenticator, Identity
from wasession_gateway.issue_token import sign
from wasession_gateway.scopes import Scope
from wasession_gateway.settings import Settings


@pytest.mark.parametrize("checks", [{}, {"jwt_audience": "wasession", "jwt_issuer": "us"}])
@pytest.mark.parametrize("admin", [False, True])
async def test_the_gateway_takes_them(admin: bool, checks: dict[str, Any]) -> None:
    settings = Settings(namespace="default", JWT_SECRET=SECRET, jwt_leeway="0s", **checks)
    token = sign(settings, "alice", timedelta(minutes=5), admin=admin)
    async with aiohttp.ClientSession() as http:
        identity = await Authenticator(settings, http).identify(token)
    assert identity == Identity("alice", admin, identity.accepted_until, token_id=identity.token_id)
    assert identity.token_id
    assert 290 < identity.accepted_until - time.time() <= 300


async def test_scopes() -> None:
    settings = Settings(namespace="default", JWT_SECRET=SECRET)
    token = sign(settings, "alice", timedelta(minutes=5), scope="sessions:read pair")
    async with aiohttp.ClientSession() as http:
        identity = await Authenticator(settings, http).identify(token)
    assert identity.permissions == {Scope.SESSIONS_READ, Scope.PAIR}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command: list[Any] = [sys.executable, "-m", "wasession_gateway.issue_token", *arguments]
    environment = {"PATH": os.environ["PATH"], "WASESSION_NAMESPACE": "default", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_as_a_command() -> None:
    made = run("alice", "--lifetime", "10m", JWT_SECRET=SECRET)
    assert made.returncode == 0
    assert made.stdout.count(".") == 2
    for arguments, environment, word in (
        (["alice", "--lifetime", "soon"], {"JWT_SECRET": SECRET}, "is not a duration"),
        (["alice", "--scope", "pair sudo"], {"JWT_SECRET": SECRET}, "unknown: sudo"),
        (["a\nb"], {"JWT_SECRET": SECRET}, "printable"),
        (["alice"], {"JWT_SECRET": "short"}, "32 bytes"),
        (
            ["alice"],
            {
                "WASESSION_JWKS_URL": "https://issuer.example/keys",
                "WASESSION_JWT_AUDIENCE": "wasession",
            },
            "JWT_SECRET is not set here",
        ),
    ):
        refused = run(*arguments, **environment)
        assert refused.returncode != 0
        assert word in refused.stderr
        assert SECRET not in refused.stderr
        assert "short" not in refused.stderr
