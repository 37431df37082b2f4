"""Tokens: good ones, hostile ones, and keys that their issuer changes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from integration.gateway.conftest import Start
from integration.gateway.fakes import serving
from integration.gateway.replica import SECRET, token
from wasession_gateway import auth
from wasession_gateway.auth import Authenticator, KeysUnavailable, Unauthorized
from wasession_gateway.settings import Settings

AUDIENCE = "wasession"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
RSA_PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**more: Any) -> dict[str, Any]:
    return {
        key: value
        for key, value in {"sub": "alice", "exp": time.time() + 60, "aud": AUDIENCE, **more}.items()
        if value is not None
    }


def unsigned(header: dict[str, Any], payload: Any) -> str:
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, payload)
    )
    return ".".join((*parts, ""))


def hand_made(header: bytes, payload: bytes = b"{}", signature: bytes = b"x") -> str:
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (header, payload, signature)
    )


def signed(key: Any, algorithm: str, name: str | None = None, **more: Any) -> str:
    return jwt.encode(
        claims(**more), key, algorithm=algorithm, headers={"kid": name} if name else None
    )


class Issuer:
    """Publishes keys, and counts the requests for them."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": RSA, "two": EC}
        self.asked = 0
        self.failing = False
        self.app = web.Application()
        self.app.router.add_get("/keys", self._show)

    async def _show(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.failing:
            return web.Response(status=500)
        keys = [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"},
            {"kty": "future", "kid": "unknown"},
        ]
        for name, key in self.keys.items():
            algorithm = (
                jwt.algorithms.RSAAlgorithm
                if isinstance(key, rsa.RSAPrivateKey)
                else jwt.algorithms.ECAlgorithm
            )
            keys.append(
                {**json.loads(algorithm.to_jwk(key.public_key())), "kid": name, "use": "sig"}
            )
        return web.json_response({"keys": keys})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with serving(issuer.app, "127.0.0.1") as issuer.port:  # type: ignore[attr-defined]
        yield issuer


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def authenticator(
    http: aiohttp.ClientSession, issuer: Issuer | None = None, **settings: Any
) -> Authenticator:
    if issuer is not None:
        settings["jwks_url"] = f"http://127.0.0.1:{issuer.port}/keys"  # type: ignore[attr-defined]
        settings["jwt_audience"] = AUDIENCE
    return Authenticator(Settings(**{"namespace": "s", "JWT_SECRET": SECRET, **settings}), http)


async def test_good_tokens(http: aiohttp.ClientSession, issuer: Issuer) -> None:
    both = authenticator(http, issuer)
    for good in (
        token("alice"),
        signed(RSA, "RS256", "one"),
        signed(EC, "ES256", "two"),
        signed(EC, "ES256"),
    ):
        caller = await both.identify(good)
        assert (caller.subject, caller.admin) == ("alice", False)
    assert issuer.asked == 1
    assert (await both.identify(token("root", role="admin"))).admin
    for almost in ("Admin", ["admin"], True, "user"):
        assert not (await both.identify(token("root", role=almost))).admin
    assert (await both.identify(signed(SECRET, "HS256", exp=time.time() - 2))).subject == "alice", (
        "clocks differ a little"
    )


HOSTILE: dict[str, Any] = {
    "nothing": None,
    "empty": "",
    "a number": 7,
    "a list": ["x"],
    "no token": "Bearer",
    "two parts": "a.b",
    "not base64": "a.b.c",
    "not ASCII": "ä.ö.ü",
    "nul": "\0.\0.\0",
    "alg none": unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "alg None": unsigned({"alg": "NONE"}, claims()),
    "no alg": unsigned({"typ": "JWT"}, claims()),
    "alg is a list": unsigned({"alg": ["HS256"]}, claims()),
    "alg is null": unsigned({"alg": None}, claims()),
    "HS512": signed(SECRET * 2, "HS512"),
    "other key": signed("y" * 32, "HS256"),
    "RSA's public key as secret": hand_made(
        b'{"alg":"HS256"}', json.dumps(claims()).encode(), RSA_PEM
    ),
    "RS256 without an issuer": signed(RSA, "RS256", "one"),
    "expired": signed(SECRET, "HS256", exp=time.time() - 3600),
    "not yet": signed(SECRET, "HS256", nbf=time.time() + 3600),
    "issued in the future": signed(SECRET, "HS256", iat=time.time() + 3600),
    "no exp": signed(SECRET, "HS256", exp=None),
    "exp is text": signed(SECRET, "HS256", exp="tomorrow"),
    "exp is endless": hand_made(b'{"alg":"HS256"}', b'{"sub":"alice","exp":1e999}'),
    "exp has 400 digits": signed(SECRET, "HS256", exp=10**400),
    "exp has 4000 digits": signed(SECRET, "HS256", exp=10**4000),
    "exp is a fraction too large": signed(SECRET, "HS256", exp=float("inf")),
    "exp is no number": signed(SECRET, "HS256", exp=float("nan")),
    "exp is true": signed(SECRET, "HS256", exp=True),
    "exp is a list": signed(SECRET, "HS256", exp=[10**10]),
    "exp is negative": signed(SECRET, "HS256", exp=-(10**400)),
    "nbf has 400 digits": signed(SECRET, "HS256", nbf=10**400),
    "nbf is a list": signed(SECRET, "HS256", nbf=[]),
    "iat has 400 digits": signed(SECRET, "HS256", iat=10**400),
    "iat is no number": signed(SECRET, "HS256", iat=float("nan")),
    "no sub": signed(SECRET, "HS256", sub=None),
    "sub is empty": signed(SECRET, "HS256", sub=""),
    "sub is long": signed(SECRET, "HS256", sub="x" * 254),
    "sub has a line break": signed(SECRET, "HS256", sub="alice\nrole: admin"),
    "claims are a list": hand_made(b'{"alg":"HS256"}', b"[]"),
    "header is a list": hand_made(b"[]"),
    "header is deep": hand_made(b"[" * 5000),
    "claims are deep": hand_made(b'{"alg":"HS256"}', b"[" * 5000),
    "key in the header": hand_made(
        b'{"alg":"HS256","jwk":{"kty":"oct","k":"eA"}}', json.dumps(claims()).encode()
    ),
    "critical extension": jwt.encode(claims(), SECRET, headers={"crit": ["x"], "x": 1}),
    "huge": signed(SECRET, "HS256", more="x" * 10_000),
    "10 MB": "x" * 10_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_tokens(http: aiohttp.ClientSession, name: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        await authenticator(http).identify(HOSTILE[name])
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        (
            "iat",
            "the token was issued in the future: check the clocks of its issuer and the gateway",
        ),
        ("nbf", "the token is not valid yet"),
    ],
)
async def test_clocks_that_differ(http: aiohttp.ClientSession, claim: str, sentence: str) -> None:
    def ahead(seconds: float) -> str:
        claims: dict[str, Any] = {claim: time.time() + seconds}
        return signed(SECRET, "HS256", **claims)

    default, strict, lenient = (
        authenticator(http),
        authenticator(http, jwt_leeway="0s"),
        authenticator(http, jwt_leeway="2m"),
    )
    assert await default.identify(ahead(8)), "a difference of some seconds is usual"
    for verifier, seconds in ((default, 3600), (strict, 8), (lenient, 150)):
        with pytest.raises(Unauthorized, match=sentence):
            await verifier.identify(ahead(seconds))
    assert await lenient.identify(ahead(90))
    late = await lenient.identify(signed(SECRET, "HS256", exp=time.time() - 90))
    assert late.accepted_until > time.time(), "connections last as long"


async def test_hostile_tokens_over_http(start: Start) -> None:
    gateway = await start(
        address_burst=1000, jwks_url="http://127.0.0.1:1/keys", jwt_audience=AUDIENCE
    )
    for name, hostile in HOSTILE.items():
        if not isinstance(hostile, str) or "\0" in hostile:
            continue
        expected = {"RS256 without an issuer": 503, "huge": 400, "10 MB": 400}.get(name, 401)
        async with gateway.http.get(
            "/whatsapp/sessions", headers={"Authorization": f"Bearer {hostile}"}
        ) as answer:
            assert answer.status == expected, name
        if len(hostile) > 8000:
            gateway.http.cookie_jar.clear()


async def test_the_other_keys_algorithm_is_refused(
    http: aiohttp.ClientSession, issuer: Issuer
) -> None:
    both = authenticator(http, issuer)
    confused = [
        hand_made(b'{"alg":"HS256","kid":"one"}', json.dumps(claims()).encode(), RSA_PEM),
        signed(EC, "ES256", "one"),
        signed(RSA, "RS256", "two"),
        signed(RSA, "RS512", "one"),
        signed(RSA, "PS256", "one"),
        signed("c2VjcmV0" * 8, "HS256", "symmetric"),
        signed(rsa.generate_private_key(65537, 2048), "RS256", "one"),
    ]
    for bad in confused:
        with pytest.raises(Unauthorized):
            await both.identify(bad)
    only_keys = authenticator(http, issuer, JWT_SECRET=None)
    with pytest.raises(Unauthorized):
        await only_keys.identify(token("alice"))


async def test_an_issuers_tokens_for_others_are_rejected(
    http: aiohttp.ClientSession, issuer: Issuer
) -> None:
    verifier = authenticator(http, issuer)
    for audience in (None, "another-application", ["a", "b"]):
        with pytest.raises(Unauthorized):
            await verifier.identify(signed(RSA, "RS256", "one", aud=audience, role="admin"))


async def test_audience_and_issuer(http: aiohttp.ClientSession) -> None:
    strict = authenticator(http, jwt_audience="wasession", jwt_issuer="https://issuer.example")
    good = {"aud": ["other", "wasession"], "iss": "https://issuer.example"}
    assert (await strict.identify(token("alice", **good))).subject == "alice"
    for wrong in (
        {},
        {**good, "aud": "other"},
        {**good, "iss": "https://evil.example"},
        {"aud": "wasession"},
    ):
        with pytest.raises(Unauthorized):
            await strict.identify(token("alice", **wrong))
    assert (await authenticator(http).identify(token("alice", aud="anything"))).subject == "alice"


async def test_keys_are_renewed(
    http: aiohttp.ClientSession, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = authenticator(http, issuer)
    await verifier.identify(signed(RSA, "RS256", "one"))
    new = rsa.generate_private_key(65537, 2048)
    issuer.keys = {"three": new}
    for _ in range(50):
        with pytest.raises(Unauthorized):
            await verifier.identify(signed(new, "RS256", "three"))
    assert issuer.asked == 1, "a flood of unknown keys is not passed on to the issuer"
    monkeypatch.setattr(auth, "KEYS_RETRY", 0)
    assert (await verifier.identify(signed(new, "RS256", "three"))).subject == "alice"
    with pytest.raises(Unauthorized):
        await verifier.identify(signed(RSA, "RS256", "one"))


async def test_the_issuer_is_away(
    http: aiohttp.ClientSession, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.failing = True
    verifier = authenticator(http, issuer)
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await verifier.identify(signed(RSA, "RS256", "one"))
    assert issuer.asked == 1
    monkeypatch.setattr(auth, "KEYS_RETRY", 0)
    issuer.failing = False
    await verifier.identify(signed(RSA, "RS256", "one"))
    issuer.failing = True
    monkeypatch.setattr(auth, "KEYS_LIFETIME", 0)
    for _ in range(3):
        assert (await verifier.identify(signed(RSA, "RS256", "one"))).subject == "alice", (
            "old keys are better than none"
        )
