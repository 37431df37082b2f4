"""Users of a nats-server that trusts an operator's key, and their credentials files."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import nkeys

OPERATOR, ACCOUNT, USER = (
    nkeys.PREFIX_BYTE_OPERATOR,
    nkeys.PREFIX_BYTE_ACCOUNT,
    nkeys.PREFIX_BYTE_USER,
)
UNLIMITED = {
    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True,
    "conn": -1, "leaf": -1,
}  # fmt: skip
STREAMS = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


class Operator:
    """Signs one account with JetStream, and users of it."""

    def __init__(self, payload: int = -1) -> None:
        """``payload``: bytes of a message at most."""
        operator, self._account, system = _key(OPERATOR), _key(ACCOUNT), _key(ACCOUNT)
        accounts = {
            _public(key): _jwt(operator, _public(key), {"limits": limits, "type": "account"})
            for key, limits in (
                (self._account, {**UNLIMITED, **STREAMS, "payload": payload}),
                (system, UNLIMITED),
            )
        }
        self.options = {
            "operator": _jwt(operator, _public(operator), {"type": "operator"}),
            "system_account": _public(system),
            "resolver": "MEMORY",
            "resolver_preload": accounts,
        }

    def credentials(self) -> str:
        """Return the credentials file of a new user of the account, as nsc writes it."""
        user = _key(USER)
        claims = {"subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}, "type": "user"}
        jwt = _jwt(self._account, _public(user), claims)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n"
            "------END USER NKEY SEED------\n"
        )


def _key(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def _public(key: nkeys.KeyPair) -> str:
    public: bytes = key.public_key
    return public.decode()


def _jwt(issuer: nkeys.KeyPair, subject: str, claims: dict[str, Any]) -> str:
    """Return a token of NATS: https://github.com/nats-io/jwt."""
    payload = {
        "jti": os.urandom(16).hex(),
        "iat": int(time.time()),
        "iss": _public(issuer),
        "sub": subject,
        "name": "tests",
        "nats": {**claims, "version": 2},
    }
    signed = f"{_encode({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encode(payload)}"
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _encode(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
