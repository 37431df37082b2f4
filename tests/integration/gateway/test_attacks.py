"""What a tenant's token must not reach. Each row is one request; nothing gets through.

The victim is alice with her session ``sales`` and its pod, whose data has marks. The attacker is
mallory, with a token and a session of her own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping, Set
from functools import partial
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from integration.gateway.conftest import Start
from integration.gateway.fakes import ApiServer, Body, Pod, serving
from integration.gateway.replica import READY, SECRET, Replica, token, until
from integration.gateway.test_auth import EC, RSA, RSA_PEM, Issuer, hand_made, signed, unsigned
from integration.gateway.test_socket import Client
from wasession_api.http.openapi import Operation
from wasession_gateway.operations import OPERATIONS
from wasession_gateway.scopes import VIEW
from wasession_gateway.session_cache import resource_name

MARKS = ("19998887777", "Alice's own name", "2@alices-code", "alices-message", "alices-node")
NUMBER = "15550001111"
MESSAGE = f"false_{NUMBER}@c.us_ABCDEF0123456789"
STATUS = READY | {
    "account": {"id": "19998887777@c.us", "pushName": "Alice's own name"},
    "nodeName": "alices-node",
}
ISSUER = "https://issuer.example"
issued = partial(token, iss=ISSUER)
MALLORY = issued("mallory")
REFUSED = frozenset({400, 401, 403, 404, 405, 409, 411, 413, 415, 422})
READ = frozenset({200})  # of what is mallory's own


class Attack(NamedTuple):
    """One request: ``line`` is its method and target, as it is sent."""

    name: str
    must_not_reach: str
    line: str
    body: Any = None
    headers: Mapping[str, str] | None = None
    expected: Set[int] = REFUSED


def cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def bearer(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials}"}


# --- another user's session -----------------------------------------------------------------------

IDS = {
    "clientId": "sales", "messageId": MESSAGE, "contactId": NUMBER, "chatId": NUMBER,
    "delivery": "crm",
}  # fmt: skip
BODIES: dict[str, Any] = {
    "sendText": {"clientId": "sales", "to": NUMBER, "text": "Hello"},
    "sendMessage": {"to": NUMBER, "text": "Hello"},
    "replayDelivery": {"after": "5c1f0e7a9b3d4c62-7"},
}


def refusals(operation: Operation, query: str) -> set[int]:
    """Return how another's session is refused: as one's own, or as one that is not there."""
    if VIEW in operation.scopes:
        return {403}
    return {404, 422} if operation.name == "sendText" and query else {404}


OF_ANOTHER = [
    Attack(
        f"{operation.name}{query}",
        "alice's session, its pod or the fact that it exists",
        f"{operation.method} {operation.path.format(**IDS)}{query}",
        BODIES.get(operation.name),
        expected=refusals(operation, query),
    )
    for operation in OPERATIONS
    if "{clientId}" in operation.path or operation.name == "sendText"
    for query in ("", "?owner=alice")
]
SESSION = "/whatsapp/sessions/sales"
IDENTIFIERS = [
    Attack(
        f"clientId {name}",
        "alice's session under another name",
        f"GET /whatsapp/sessions/{name}",
        expected={404, 422},
    )
    for name in (
        "",
        resource_name("alice", "sales"),
        "sales%20",
        "%20sales",
        "SALES",
        "%73ales",
        "%2573ales",
        "sales%00",
        "sales%0a",
        "sales;owner=alice",
        "alice%2fsales",
        "alice:sales",
        "session:sales",
        "wasession-sales",
        "%EF%BD%93ales",
        "s%C3%A4les",
        "*",
        ".",
        "%2e%2e",
    )
]
QUERIES = [
    Attack(
        f"query {path}?{query}",
        "alice's sessions",
        f"GET /whatsapp/{path}?{query}",
        expected=READ | {422, 404},
    )
    for path, query in (
        ("sessions", "owner=alice"),
        ("sessions", "owner=mallory&owner=alice"),
        ("sessions", "owner=alice%00"),
        ("sessions", "owner[]=alice"),
        ("sessions", "owner="),
        ("sessions", "owner=*"),
        ("sessions", "OWNER=alice"),
        ("sessions", "sub=alice"),
        ("sessions", "role=admin"),
        ("sessions", "admin=true"),
        ("sessions", "limit=-1"),
        ("sessions", "limit=99999999999"),
        ("sessions", f"continue={cursor('a')}"),
        ("sessions", f"continue={cursor('')}"),
        ("sessions", f"continue={cursor('sales')}&owner=alice"),
        ("sessions", f"continue={cursor('owner:alice')}"),
        ("sessions", f"continue={cursor(chr(0))}"),
        ("sessions", "continue=..%2f..%2fsales"),
        ("accounts", "owner=alice"),
        ("accounts", f"continue={cursor('rrr')}"),
        ("restored-sessions", "owner=alice"),
        ("restored-sessions", f"continue={cursor('rrr')}"),
        ("health", "owner=alice"),
    )
]

# --- paths ----------------------------------------------------------------------------------------

MINE = "/whatsapp/sessions/mine"
PATHS = [
    Attack(f"path {line}", what, line)
    for what, line in (
        ("alice's session by a relative path", f"GET {MINE}/../sales"),
        ("alice's session by a relative path", f"GET {MINE}%2f..%2fsales"),
        ("alice's session by a relative path", f"GET {MINE}/%2e%2e/sales"),
        ("alice's code by a relative path", f"GET {MINE}/..%2fsales/pairing"),
        ("alice's code by a backslash", f"GET {MINE}\\..\\sales\\pairing"),
        ("another path of a pod", f"GET {MINE}/messages/..%2f..%2fpairing"),
        ("another path of a pod", f"GET {MINE}/messages/{MESSAGE}%2f..%2f..%2fstate"),
        ("another path of a pod", f"GET {MINE}/messages/{MESSAGE}%3ftypes=message"),
        ("another path of a pod", f"GET {MINE}/contacts/..%2fscreenshot"),
        ("another path of a pod", f"GET {MINE}/contacts/{NUMBER}%23"),
        ("another path of a pod", f"GET {MINE}/deliveries/..%2f..%2fstate/dead-letters"),
        ("another path of a pod", f"GET {MINE}/contacts/{NUMBER}%40c.us%2f..%2f..%2fevents"),
        ("a pod's own API", "GET /v1/pairing"),
        ("a pod's own API", f"GET {SESSION}/v1/pairing"),
        ("a pod's events", f"GET {SESSION}/events"),
        ("a pod's screenshot", f"GET {SESSION}/screenshot"),
        ("a pod's state", f"GET {SESSION}/state"),
        ("alice's media", f"GET {SESSION}/messages/{MESSAGE}/media"),
        ("the management port", "GET /metrics"),
        ("the management port", "GET /readyz"),
        ("the management port", "GET http://127.0.0.1:8081/metrics"),
        ("the API server", "GET /apis/wasession.dev/v1alpha1/namespaces/sessions/whatsappsessions"),
        ("the API server", "GET /api/v1/namespaces/sessions/secrets"),
        ("another host", "CONNECT 127.0.0.1:8080"),
        ("the gateway's files", "GET /..%2f..%2f..%2f..%2fetc/wasession/session-key"),
        ("the gateway's files", "GET /../../../../etc/wasession/session-key"),
        ("the gateway's files", "GET /console/../settings.py"),
        ("the gateway's files", "GET /%2e%2e/settings.py"),
        ("a route without authentication", f"GET /{SESSION}"),
        ("a route without authentication", "GET /WHATSAPP/sessions/sales"),
        ("a route without authentication", "GET /%77hatsapp/sessions/sales"),
    )
]

# --- headers --------------------------------------------------------------------------------------

HEADERS = [
    Attack(f"header {name}: {value[:30]}", what, line, None, {name: value}, expected)
    for what, line, name, value, expected in (
        ("alice's session", f"GET {SESSION}", "X-Forwarded-User", "alice", {404}),
        ("alice's session", f"GET {SESSION}", "X-Remote-User", "alice", {404}),
        ("alice's session", f"GET {SESSION}", "X-Auth-Request-User", "alice", {404}),
        ("alice's session", f"GET {SESSION}", "Impersonate-User", "alice", {404}),
        ("alice's session", f"GET {SESSION}", "X-Forwarded-For", "127.0.0.1", {404}),
        ("alice's session", f"GET {SESSION}", "Forwarded", "for=127.0.0.1;by=alice", {404}),
        ("alice's session", f"GET {SESSION}", "Host", "127.0.0.1:8081", {404}),
        ("alice's session", f"GET {SESSION}", "Host", "sales.pods.cluster.local", {404}),
        ("alice's session", f"GET {SESSION}", "If-None-Match", "*", {404}),
        ("alice's session", f"GET {SESSION}", "Range", "bytes=0-", {404}),
        ("alice's session", f"GET {SESSION}", "Cookie", f"token={token('alice')}", {404}),
        ("alice's session", "GET /whatsapp/health", "X-Original-URL", SESSION, {200}),
        ("alice's session", "GET /whatsapp/health", "X-Rewrite-URL", SESSION, {200}),
        ("a deletion", f"GET {SESSION}", "X-HTTP-Method-Override", "DELETE", {404}),
        ("a deletion", f"POST {SESSION}", "X-HTTP-Method", "DELETE", {405}),
        ("a deletion", f"POST {SESSION}?_method=DELETE", "X-Method-Override", "DELETE", {405}),
        ("admins' rights", "GET /whatsapp/sessions", "X-Role", "admin", {200}),
        ("admins' rights", "GET /whatsapp/sessions", "X-Scopes", "admin", {200}),
        ("a second request", "POST /whatsapp/sessions", "Transfer-Encoding", "chunked", REFUSED),
        ("a second request", "POST /whatsapp/sessions", "Content-Length", "5, 6", REFUSED),
        ("a response split", f"GET {SESSION}", "Accept", "image/png\r\n X: y", REFUSED),
    )
]

# --- forged tokens --------------------------------------------------------------------------------

CLAIMS = {"sub": "alice", "aud": "wasession", "iss": ISSUER, "exp": time.time() + 3600}


def resigned(**changes: Any) -> str:
    """Mallory's token with other claims and its old signature."""
    header, _, signature = MALLORY.split(".")
    payload = base64.urlsafe_b64encode(json.dumps({**CLAIMS, **changes}).encode())
    return f"{header}.{payload.rstrip(b'=').decode()}.{signature}"


def with_header(**header: Any) -> str:
    """A token for alice, signed with a secret of mallory's own."""
    return jwt.encode(CLAIMS, "mallory" * 8, algorithm="HS256", headers=header)


def of_issuer(key: Any, algorithm: str, name: str | None = None, **changes: Any) -> str:
    return signed(key, algorithm, name, **{"iss": ISSUER, **changes})


FORGED = {
    "alg none": unsigned({"alg": "none"}, CLAIMS),
    "alg nOnE": unsigned({"alg": "nOnE"}, CLAIMS),
    "alg empty": unsigned({"alg": ""}, CLAIMS),
    "no alg": unsigned({"typ": "JWT"}, CLAIMS),
    "no signature": MALLORY.rsplit(".", 1)[0] + ".",
    "another payload": resigned(),
    "role admin in the payload": resigned(sub="mallory", role="admin"),
    "scope admin in the payload": resigned(sub="mallory", scope="admin"),
    "HS256 with the RSA key's PEM": hand_made(
        b'{"alg":"HS256","kid":"one"}', json.dumps(CLAIMS).encode(), RSA_PEM
    ),
    "HS256 with an empty secret": hand_made(b'{"alg":"HS256"}', json.dumps(CLAIMS).encode(), b""),
    "HS512 with the right secret": jwt.encode(CLAIMS, SECRET * 2, algorithm="HS512"),
    "kid of a file": with_header(kid="../../../../dev/null"),
    "kid of SQL": with_header(kid="x' UNION SELECT 'secret' --"),
    "kid of the symmetric key": of_issuer("c2VjcmV0" * 8, "HS256", "symmetric"),
    "kid of the RSA key": with_header(kid="one"),
    "jku of mallory": with_header(jku="http://127.0.0.1:1/keys"),
    "x5u of mallory": with_header(x5u="http://127.0.0.1:1/cert"),
    "jwk in the header": with_header(jwk={"kty": "oct", "k": "bWFsbG9yeQ"}),
    "RS256 with another key": of_issuer(rsa.generate_private_key(65537, 2048), "RS256", "one"),
    "ES256 under the RSA key's name": of_issuer(EC, "ES256", "one"),
    "RS512": of_issuer(RSA, "RS512", "one"),
    "PS256": of_issuer(RSA, "PS256", "one"),
    "another audience": of_issuer(RSA, "RS256", "one", aud="another"),
    "no audience": of_issuer(RSA, "RS256", "one", aud=None),
    "another issuer": of_issuer(RSA, "RS256", "one", iss="https://mallory.example"),
    "expired": of_issuer(RSA, "RS256", "one", exp=time.time() - 3600),
    "not yet valid": of_issuer(RSA, "RS256", "one", nbf=time.time() + 3600),
    "critical extension": jwt.encode(CLAIMS, SECRET, headers={"crit": ["exp"], "exp": 1}),
    "unencoded payload": jwt.encode(CLAIMS, SECRET, headers={"b64": False, "crit": ["b64"]}),
    "a list as subject": of_issuer(SECRET, "HS256", sub=["alice"]),
    "encrypted (JWE)": "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA",
}
TOKENS = [
    Attack(
        f"token: {name}",
        "alice's session with a forged token",
        f"GET {SESSION}",
        headers=bearer(forged),
        expected={401},
    )
    for name, forged in FORGED.items()
] + [
    Attack(f"token {name}", "anything without a token", line, None, headers, {401, 404})
    for name, line, headers in (
        ("in the query", f"GET {SESSION}?access_token={token('alice')}", {"Authorization": ""}),
        ("in a cookie", f"GET {SESSION}", {"Authorization": "", "Cookie": f"t={token('alice')}"}),
        ("as basic", f"GET {SESSION}", {"Authorization": f"Basic {token('alice')}"}),
        ("twice", f"GET {SESSION}", bearer(f"{MALLORY}, Bearer {token('alice')}")),
        ("missing", f"GET {SESSION}", {"Authorization": ""}),
    )
]

# --- escalation and bodies ------------------------------------------------------------------------

NARROW = bearer(issued("mallory", scope="sessions:read"))
ESCALATIONS = [
    Attack(name, "what the scope does not permit", line, body, headers, {403})
    for name, line, body, headers in (
        ("create", "POST /whatsapp/sessions", {"clientId": "more"}, NARROW),
        ("scope in the query", f"DELETE {MINE}?scope=admin", None, NARROW),
        ("scope in the body", "POST /whatsapp/sessions", {"clientId": "x", "scope": "a"}, NARROW),
        ("scope in a header", f"POST {MINE}/suspend", None, {**NARROW, "X-Scope": "admin"}),
        ("HEAD of a code", f"HEAD {MINE}/pairing", None, NARROW),
        ("code of one's own", f"GET {MINE}/pairing", None, NARROW),
        ("refresh", f"POST {MINE}/pairing/refresh", None, NARROW),
        ("chats", f"GET {MINE}/chats", None, NARROW),
        ("contact", f"GET {MINE}/contacts/{NUMBER}", None, NARROW),
        ("restore", "POST /whatsapp/restore-session/mine", None, NARROW),
        (
            "send",
            "POST /whatsapp/messages",
            {"clientId": "mine", "to": NUMBER, "text": "x"},
            NARROW,
        ),
        (
            "a wildcard",
            f"POST {MINE}/suspend",
            None,
            bearer(issued("mallory", scope="* sessions:*")),
        ),
        (
            "a prefix",
            f"POST {MINE}/suspend",
            None,
            bearer(issued("mallory", scope="sessions:writer")),
        ),
        ("upper case", f"POST {MINE}/suspend", None, bearer(issued("mallory", scope="ADMIN"))),
        (
            "two claims",
            f"POST {MINE}/suspend",
            None,
            bearer(issued("mallory", scope="", scp="admin")),
        ),
        ("nothing", f"GET {MINE}", None, bearer(issued("mallory", scope=""))),
    )
] + [
    Attack(
        f"claim {name}={value}",
        "alice's session by a claim of no meaning",
        f"GET {SESSION}?owner=alice",
        headers=bearer(issued("mallory", **{name: value})),
        expected={404},
    )
    for name, value in (
        ("role", "Admin"),
        ("role", ["admin"]),
        ("roles", ["admin"]),
        ("admin", True),
        ("groups", ["admin", "system:masters"]),
        ("scope", "sessions:read administrator"),
        ("owner", "alice"),
        ("preferred_username", "alice"),
    )
]
CREATE = "POST /whatsapp/sessions"
CREATIONS = [
    Attack(f"body with {name}", what, CREATE, body)
    for name, what, body in (
        ("owner", "a session in alice's name", {"clientId": "x", "owner": "alice"}),
        ("owner, other case", "a session in alice's name", {"clientId": "x", "Owner": "alice"}),
        (
            "owner twice",
            "a session in alice's name",
            '{"clientId":"x","owner":"m","owner":"alice"}',
        ),
        ("className", "another class", {"clientId": "x", "className": "privileged"}),
        ("class_name", "another class", {"clientId": "x", "class_name": "privileged"}),
        ("spec", "any field of the spec", {"clientId": "x", "spec": {"className": "privileged"}}),
        ("podTemplate", "the pod", {"clientId": "x", "podTemplate": {"spec": {"hostPID": True}}}),
        ("image", "the pod's image", {"clientId": "x", "browser": {"image": "evil"}}),
        (
            "flags",
            "Chromium's flags",
            {"clientId": "x", "browser": {"extraArgs": ["--no-sandbox"]}},
        ),
        ("proxy", "a Secret", {"clientId": "x", "browser": {"proxySecretRef": {"name": "s"}}}),
        ("url", "another page", {"clientId": "x", "whatsapp": {"url": "https://evil.example"}}),
        ("storage", "others' storage", {"clientId": "x", "storage": {"size": "9Ti"}}),
        ("metadata", "labels", {"clientId": "x", "metadata": {"labels": {"a": "b"}}}),
        ("namespace", "another namespace", {"clientId": "x", "namespace": "kube-system"}),
        ("name", "another name", {"clientId": "x", "name": "sales"}),
        ("status", "the status", {"clientId": "x", "status": {"tokenEpoch": 7}}),
        ("__proto__", "anything", {"clientId": "x", "__proto__": {"owner": "alice"}}),
        ("pairing.owner", "anything", {"clientId": "x", "pairing": {"owner": "alice"}}),
        ("a path as clientId", "another path", {"clientId": "../sales"}),
        ("a number as clientId", "anything", {"clientId": 7}),
        ("a list", "anything", [{"clientId": "x"}]),
        ("nothing", "anything", None),
    )
]
SENDING = "POST /whatsapp/messages"
WRITES = [
    Attack(name, what, line, body)
    for name, what, line, body in (
        ("send for alice", "alice's session", SENDING, {**BODIES["sendText"], "owner": "alice"}),
        ("send as alice", "alice's session", SENDING, {**BODIES["sendText"], "sub": "alice"}),
        ("send to a path", "a pod's path", SENDING, {**BODIES["sendText"], "clientId": "../sales"}),
        ("send null", "alice's session", SENDING, {**BODIES["sendText"], "owner": None}),
        ("PUT", "the spec", f"PUT {SESSION}", {"spec": {"owner": "mallory"}}),
        ("PATCH", "the spec", f"PATCH {SESSION}", {"spec": {"owner": "mallory"}}),
        ("PATCH of one's own", "the owner", f"PATCH {MINE}", {"spec": {"owner": "alice"}}),
        ("TRACE", "headers", f"TRACE {SESSION}", None),
        ("suspend with a body", "alice's", f"POST {SESSION}/suspend", {"owner": "mallory"}),
    )
]
ATTACKS = [
    *OF_ANOTHER,
    *IDENTIFIERS,
    *QUERIES,
    *PATHS,
    *HEADERS,
    *TOKENS,
    *ESCALATIONS,
    *CREATIONS,
    *WRITES,
]


class Victim(NamedTuple):
    """Alice's session with its pod, and the gateway in front of it."""

    api: ApiServer
    pod: Pod
    gateway: Replica

    def check(self) -> None:
        """Neither her session nor her pod has noticed anything, and mallory got nothing."""
        assert not self.pod.asked, "a request reached alice's pod"
        assert not self.pod.refused
        for name in self.api.names:
            spec = self.api.session(name)["spec"]
            if name == "sales":
                assert spec == {"owner": "alice", "clientId": "sales"}
                assert "deletionTimestamp" not in self.api.session(name)["metadata"]
                assert "annotations" not in self.api.session(name)["metadata"]
            else:
                assert spec["owner"] == "mallory"
                assert spec.keys() <= {"owner", "clientId", "pairing", "suspend"}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with serving(issuer.app, "127.0.0.1") as issuer.port:  # type: ignore[attr-defined]
        yield issuer


@pytest.fixture
async def victim(api: ApiServer, pod: Pod, start: Start, issuer: Issuer) -> Victim:
    await api.put("sales", {"owner": "alice", "clientId": "sales"}, STATUS)
    await api.put("mine", {"owner": "mallory", "clientId": "mine"}, READY)
    pod.code = "2@alices-code"
    gateway = await start(
        jwks_url=f"http://127.0.0.1:{issuer.port}/keys",  # type: ignore[attr-defined]
        jwt_audience="wasession",
        jwt_issuer=ISSUER,
        jwt_leeway="0s",
    )
    await gateway.caught_up()
    return Victim(api, pod, gateway)


async def send(gateway: Replica, attack: Attack) -> tuple[int, str]:
    """Send a request as it is, which a client library might not; return status and response."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = attack.body if isinstance(attack.body, str) else json.dumps(attack.body)
    headers = {"Host": "x", "Connection": "close", **bearer(MALLORY)}
    if attack.body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    headers = {
        name: value for name, value in {**headers, **(attack.headers or {})}.items() if value
    }
    lines = [f"{attack.line} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    sent = "\r\n".join([*lines, "", body if attack.body is not None else ""])
    writer.write(sent.encode())
    answer = (await reader.read()).decode(errors="replace")
    writer.close()
    return int(answer.split(" ", 2)[1]), answer


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_nothing_gets_through(victim: Victim, attack: Attack) -> None:
    status, answer = await send(victim.gateway, attack)
    assert status in attack.expected, f"{attack.must_not_reach}: {answer}"
    assert not [mark for mark in MARKS if mark in answer], attack.must_not_reach
    victim.check()


async def test_alice_herself_gets_through(victim: Victim) -> None:
    """The requests are those that would reach her session."""
    answers = ""
    for path in ("", "/pairing"):
        own = Attack("", "", f"GET {SESSION}{path}", headers=bearer(issued("alice")))
        status, answer = await send(victim.gateway, own)
        assert status == 200
        answers += answer
    assert [mark for mark in MARKS if mark in answers] == list(MARKS[:3])
    with pytest.raises(AssertionError, match="reached alice's pod"):
        victim.check()
    for genuine in (of_issuer(RSA, "RS256", "one"), of_issuer(EC, "ES256", "two")):
        own = Attack("", "", f"GET {SESSION}", headers=bearer(genuine))
        assert (await send(victim.gateway, own))[0] == 200


def test_there_are_enough_attacks() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))
    assert len(ATTACKS) + len(SOCKET) + len(HANDSHAKES) >= 60


# --- Socket.IO ------------------------------------------------------------------------------------


class Emitted(NamedTuple):
    """One event that mallory's client sends; ``problem`` is the status of its answer, if any."""

    name: str
    must_not_reach: str
    event: str
    payload: Any
    problem: int | None


SOCKET = [
    Emitted("join", "alice's session", "init", {"clientId": "sales"}, 404),
    Emitted("join as hers", "alice's", "init", {"clientId": "sales", "owner": "alice"}, 404),
    Emitted("join all of hers", "alice's sessions", "init", {"owner": "alice"}, 403),
    Emitted("join everybody's", "all sessions", "init", {"owner": "*"}, 403),
    Emitted("join admins", "all sessions", "init", {"owner": "admins"}, 403),
    Emitted("a role", "all sessions", "init", {"role": "admin", "clientId": "sales"}, 404),
    Emitted("a scope", "all sessions", "init", {"scope": "admin", "owner": "alice"}, 403),
    Emitted("a user id", "alice's", "init", {"userId": "alice", "clientId": "sales"}, 404),
    Emitted("a room", "alice's room", "init", {"clientId": "session:sales"}, 404),
    Emitted("an owner's room", "alice's room", "init", {"clientId": "owner:alice"}, 404),
    Emitted("rooms", "alice's room", "init", {"rooms": ["session:sales"], "clientId": "x"}, 404),
    Emitted("create hers", "a session in her name", "init",
            {"clientId": "sales", "owner": "alice", "create": True}, 403),
    Emitted("create new for her", "a session in her name", "init",
            {"clientId": "x", "owner": "alice", "create": True}, 403),
    Emitted("create with a class", "another class", "init",
            {"clientId": "y", "create": True, "className": "privileged"}, None),
    Emitted("create with a spec", "the pod", "init",
            {"clientId": "z", "create": True, "spec": {"podTemplate": {}}}, None),
    Emitted("create with a number", "the pod", "init",
            {"clientId": "z", "create": True, "pairing": {"image": "x"}}, 422),
    Emitted("her name as a path", "a path", "init", {"clientId": "../sales", "create": True}, 422),
    Emitted("her resource name", "alice's", "init",
            {"clientId": resource_name("alice", "sales")}, 404),
    Emitted("a list", "anything", "init", ["sales"], 422),
    Emitted("a text", "anything", "init", "sales", 422),
    Emitted("her forged token", "her identity", "init", {"token": FORGED["alg none"]}, 401),
    Emitted("an admin's forged token", "all sessions", "init",
            {"token": FORGED["role admin in the payload"]}, 401),
    Emitted("a token for another audience", "her identity", "init",
            {"token": FORGED["another audience"]}, 401),
    *(
        Emitted(f"event {event}", "rooms and others' events", event, payload, None)
        for event, payload in (
            ("join", "session:sales"),
            ("join_room", {"room": "owner:alice"}),
            ("enter_room", "owner:alice"),
            ("subscribe", ["admins"]),
            ("message", {"clientId": "sales", "text": "for alice"}),
            ("state", {"clientId": "sales", "phase": "Failed"}),
            ("closing", {"reason": "TokenExpired"}),
            ("publish", "sales"),
            ("_init", {"clientId": "sales"}),
            ("session_changed", "sales"),
        )
    ),
]  # fmt: skip
HANDSHAKES = {**FORGED, "nothing": "", "a list": ["alice"], "a number": 7, "null": None}


async def provoke(victim: Victim, alice: Client) -> None:
    """Let everything happen to alice's session that she is sent events about."""
    await victim.pod.receives("alices-message")
    await alice.hears("message")
    await victim.pod.offers("2@alices-code", attempt=1)
    await alice.hears("qr")
    await victim.api.status("sales", phase="Reconnecting")
    await alice.hears("disconnected")


@pytest.fixture
async def alice(victim: Victim) -> AsyncIterator[Client]:
    client = await Client(victim.gateway.url).connect("alice", iss=ISSUER)
    await client.init(clientId="sales")
    await until(lambda: victim.pod.followers == 1)
    yield client
    await client.io.disconnect()


@pytest.mark.parametrize("attack", SOCKET, ids=lambda attack: attack.name)
async def test_nothing_gets_through_over_socket_io(
    victim: Victim, alice: Client, attack: Emitted
) -> None:
    mallory = await Client(victim.gateway.url).connect("mallory", iss=ISSUER)
    try:
        if attack.event == "init":
            answer = await mallory.io.call("init", attack.payload, namespace="/whatsapp")
            problem = answer.get("problem", {"status": None})
            assert problem["status"] == attack.problem, attack.must_not_reach
        else:
            await mallory.io.emit(attack.event, attack.payload, namespace="/whatsapp")
        await provoke(victim, alice)
        await mallory.init()  # whatever was sent before has arrived
        received = json.dumps(mallory.heard)
    finally:
        await mallory.io.disconnect()
    assert not [mark for mark in MARKS if mark in received], attack.must_not_reach
    assert '"sales"' not in received
    assert not alice.io.connected or "closing" not in alice.names()
    for name in set(victim.api.names) - {"sales"}:
        spec: Body = victim.api.session(name)["spec"]
        assert spec["owner"] == "mallory"
        assert spec.keys() <= {"owner", "clientId"}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_nobody_connects_with_a_forged_token(victim: Victim, name: str) -> None:
    handshake = json.dumps({"token": HANDSHAKES[name]})
    async with victim.gateway.http.ws_connect("/socket.io/?EIO=4&transport=websocket") as mallory:
        await mallory.receive()
        await mallory.send_str(f"40/whatsapp,{handshake}")
        answer = (await mallory.receive_str())[:300]
        if answer.startswith("40/whatsapp,"):  # without a token: it may still come with init
            assert HANDSHAKES[name] in ("", None)
            await mallory.send_str('42/whatsapp,1["init",{"clientId":"sales"}]')
            answer = await mallory.receive_str()
        assert '"status":401' in answer
    victim.check()
