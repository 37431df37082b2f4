"""REST as applications use it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from integration.gateway.conftest import Start
from integration.gateway.fakes import KEY, ApiServer, Pod, key_file, now
from integration.gateway.replica import READY, Replica, token, until
from support.loopback import pod_address
from wasession_api.session_pod.token_derivation import derive_token

WATCHED = "/apis/wasession.dev/v1alpha1/namespaces/sessions"


# --- reading --------------------------------------------------------------------------------------


async def test_a_user_sees_the_own_sessions_and_nobody_elses(
    api: ApiServer, gateway: Replica
) -> None:
    await api.put("from-kubectl", {"owner": "alice", "clientId": "sales"}, READY)
    made = await gateway.ask("bob", "POST", "/whatsapp/sessions", 201, json={"clientId": "sales"})
    assert made["clientId"] == "sales"
    assert made["name"].startswith("sales-")

    [hers] = (await gateway.ask("alice", "GET", "/whatsapp/sessions"))["items"]
    assert (hers["name"], hers["status"], hers["phase"]) == ("from-kubectl", "ready", "Ready")
    assert (await gateway.ask("bob", "GET", "/whatsapp/session-status/sales"))["name"] == made[
        "name"
    ]
    for path in (
        "sessions/other",
        "session-status/other",
        "sessions/other/pairing",
        "sessions/other/chats",
    ):
        await gateway.ask("bob", "GET", f"/whatsapp/{path}", 404)
    await gateway.ask("carol", "DELETE", "/whatsapp/sessions/sales", 404)
    await gateway.ask("carol", "GET", "/whatsapp/sessions/sales?owner=alice", 404)
    assert (await gateway.ask("carol", "GET", "/whatsapp/sessions?owner=alice"))["items"] == []


async def test_an_admin_sees_all_and_says_whose(api: ApiServer, gateway: Replica) -> None:
    for owner in ("alice", "bob"):
        await api.put(f"sales-of-{owner}", {"owner": owner, "clientId": "sales"}, READY)
    await api.put("nobodys", {}, READY)
    admin = {"role": "admin"}
    answer = await gateway.ask("root", "GET", "/whatsapp/sessions", claims=admin)
    assert [item["name"] for item in answer["items"]] == [
        "nobodys",
        "sales-of-alice",
        "sales-of-bob",
    ]
    answer = await gateway.ask("root", "GET", "/whatsapp/sessions?owner=bob", claims=admin)
    assert [item["name"] for item in answer["items"]] == ["sales-of-bob"]
    await gateway.ask("root", "GET", "/whatsapp/sessions/sales", 409, claims=admin)
    answer = await gateway.ask("root", "GET", "/whatsapp/sessions/sales?owner=bob", claims=admin)
    assert answer["owner"] == "bob"
    assert (await gateway.ask("root", "GET", "/whatsapp/sessions/nobodys", claims=admin))[
        "clientId"
    ] == "nobodys"
    assert (await gateway.ask("root", "GET", "/whatsapp/health", claims=admin))["sessions"] == 3


async def test_lists_come_in_pages(api: ApiServer, gateway: Replica) -> None:
    for number in range(7):
        await api.put(
            f"session-{number}", {"owner": "alice"}, READY | {"restored": number % 2 == 0}
        )
    seen, path = [], "/whatsapp/sessions?limit=3"
    for expected in (3, 3, 1):
        page = await gateway.ask("alice", "GET", path)
        assert len(page["items"]) == expected
        seen += [item["clientId"] for item in page["items"]]
        path = f"/whatsapp/sessions?limit=3&continue={page.get('continue')}"
    assert "continue" not in page
    assert seen == [f"session-{number}" for number in range(7)]
    restored = await gateway.ask("alice", "GET", "/whatsapp/restored-sessions?limit=4")
    assert [item["clientId"] for item in restored["items"]] == [
        f"session-{number}" for number in (0, 2, 4, 6)
    ]
    assert "continue" not in restored
    await gateway.ask("alice", "GET", "/whatsapp/sessions?continue=%%%", 422)
    await gateway.ask("alice", "GET", "/whatsapp/sessions?limit=1001", 422)
    await gateway.ask("alice", "GET", "/whatsapp/sessions?page=1", 422)


async def test_accounts_and_health_tell_of_restorations(api: ApiServer, gateway: Replica) -> None:
    failed = [
        {
            "type": "Restored",
            "status": "False",
            "reason": "ProfileDamaged",
            "message": "…",
            "lastTransitionTime": "2026-10-01T10:00:00Z",
        }
    ]
    await api.put("a", {"owner": "alice"}, READY | {"restored": True, "restorations": 3})
    await api.put(
        "b", {"owner": "alice"}, {"phase": "Restoring", "sessionValid": True, "conditions": failed}
    )
    await api.put("c", {"owner": "alice"}, {"phase": "Authenticating"})
    await api.put("d", {"owner": "bob"}, READY)
    accounts = (await gateway.ask("alice", "GET", "/whatsapp/accounts"))["items"]
    assert [account["status"] for account in accounts] == ["ready", "active", "authenticating"]
    assert accounts[0]["account"] == {"id": "15551234567@c.us"}
    assert accounts[0]["sessionData"] == {
        "isAuthenticated": True,
        "sessionValid": True,
        "authState": "CONNECTED",
        "lastConnected": "2026-10-01T10:00:00Z",
    }
    health = await gateway.ask("alice", "GET", "/whatsapp/health")
    assert health == {
        "status": "ok",
        "sessions": 3,
        "byStatus": {"active": 1, "disconnected": 0, "authenticating": 1, "ready": 1},
        "restoration": {"valid": 2, "restored": 1, "restoring": 1, "failed": 1, "restorations": 3},
    }


async def test_reads_ask_nothing_of_the_api_server(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    for path in (
        "sessions",
        "accounts",
        "restored-sessions",
        "health",
        "session-status/sales",
        "sessions/sales",
    ):
        await gateway.ask("alice", "GET", f"/whatsapp/{path}")
    assert dict(api.calls) == {f"GET {WATCHED}": 1, f"WATCH {WATCHED}": 1}


async def test_the_cache_outlives_the_api_server_and_a_lost_history(
    api: ApiServer, gateway: Replica
) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    await api.put("old", {"owner": "alice"}, READY)
    await gateway.caught_up()
    api.failing = True
    await api.forget_history()
    await api.remove("old")
    assert (
        len((await gateway.ask("alice", "GET", "/whatsapp/sessions", at_once=True))["items"]) == 2
    )
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/suspend", 503, at_once=True)
    api.failing = False
    await until(lambda: len(gateway.gateway.sessions) == 1)
    await api.put("sales", {"owner": "alice"}, {"phase": "Suspended"})
    await until(
        lambda: (
            (session := gateway.gateway.sessions.get("sales")) is not None
            and session.phase == "Suspended"
        )
    )


async def test_etags(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    await gateway.caught_up()
    headers = {"Authorization": f"Bearer {token('alice')}"}
    async with gateway.http.get("/whatsapp/sessions/sales", headers=headers) as answer:
        etag, body = answer.headers["ETag"], await answer.json()
    assert etag == f'"{body["version"]}"'
    async with gateway.http.get(
        "/whatsapp/sessions/sales", headers=headers | {"If-None-Match": etag}
    ) as answer:
        assert answer.status == 304
    await gateway.ask(
        "alice", "POST", "/whatsapp/sessions/sales/suspend", 200, headers={"If-Match": etag}
    )
    for stale in (etag, f"W/{etag}", '"nonsense"'):
        await gateway.ask(
            "alice", "POST", "/whatsapp/sessions/sales/resume", 412, headers={"If-Match": stale}
        )
        await gateway.ask(
            "alice", "DELETE", "/whatsapp/sessions/sales", 412, headers={"If-Match": stale}
        )
    assert api.session("sales")["spec"]["suspend"] is True
    await gateway.ask(
        "alice", "POST", "/whatsapp/sessions/sales/resume", 200, headers={"If-Match": "*"}
    )


# --- writing --------------------------------------------------------------------------------------


async def test_create_makes_what_the_platform_allows(api: ApiServer, start: Start) -> None:
    template = {"storage": {"size": "2Gi"}, "pairing": {"maxRounds": 3}}
    gateway = await start(session_template=template, max_sessions_per_owner=2)
    pairing = {"method": "PairingCode", "phoneNumber": "15551234567"}
    made = await gateway.ask(
        "alice",
        "POST",
        "/whatsapp/sessions",
        201,
        json={"clientId": "Sales_EU", "pairing": pairing},
    )
    assert api.session(made["name"])["spec"] == {
        "owner": "alice",
        "clientId": "Sales_EU",
        "storage": {"size": "2Gi"},
        "pairing": {"maxRounds": 3, **pairing},
    }
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 409, json={"clientId": "Sales_EU"})
    await gateway.ask(
        "alice", "POST", "/whatsapp/sessions", 403, json={"clientId": "x", "owner": "bob"}
    )
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 201, json={"clientId": "sales-eu"})
    assert len(api.names) == 2, "names that differ in case only are two sessions"
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 403, json={"clientId": "third"})
    bodies: tuple[Any, ...] = (
        {},
        {"clientId": "a/b"},
        {"clientId": "x", "browser": {"image": "evil"}},
        {"clientId": "x" * 65},
        [],
        "x",
    )
    for bad in bodies:
        await gateway.ask("bob", "POST", "/whatsapp/sessions", 422, json=bad)
    await gateway.ask(
        "bob",
        "POST",
        "/whatsapp/sessions",
        422,
        json={"clientId": "x", "pairing": {"method": "PairingCode"}},
    )
    refused = {"clientId": "x", "pairing": {"method": "PairingCode", "phoneNumber": "15550000000"}}
    problem = await gateway.ask("bob", "POST", "/whatsapp/sessions", 422, json=refused)
    assert "not this one" in problem["detail"]


async def test_the_limit_holds_for_requests_at_once(api: ApiServer, start: Start) -> None:
    gateway = await start(max_sessions_per_owner=2)
    headers = {"Authorization": f"Bearer {token('alice')}"}

    async def create(number: int) -> int:
        async with gateway.http.post(
            "/whatsapp/sessions", json={"clientId": f"s{number}"}, headers=headers
        ) as answer:
            return answer.status

    assert sorted(await asyncio.gather(*map(create, range(8)))) == [201] * 2 + [403] * 6
    assert len(api.names) == 2
    await api.remove(api.names[0])
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 201, json={"clientId": "another"})


async def test_users_may_be_denied_to_create(api: ApiServer, start: Start) -> None:
    gateway = await start(allow_create=False)
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 403, json={"clientId": "x"})
    body = {"clientId": "x", "owner": "alice"}
    await gateway.ask(
        "root", "POST", "/whatsapp/sessions", 201, json=body, claims={"role": "admin"}
    )
    assert (await gateway.ask("alice", "GET", "/whatsapp/sessions/x"))["owner"] == "alice"


async def test_a_name_that_is_taken_is_not_taken_over(api: ApiServer, gateway: Replica) -> None:
    made = await gateway.ask("alice", "POST", "/whatsapp/sessions", 201, json={"clientId": "sales"})
    await api.put(made["name"], {"owner": "bob", "clientId": "sales"})
    await until(lambda: gateway.gateway.sessions.find("sales", "bob") is not None)
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales", 404)
    await gateway.ask("alice", "POST", "/whatsapp/sessions", 409, json={"clientId": "sales"})
    assert api.session(made["name"])["spec"]["owner"] == "bob"


async def test_suspend_resume_restart(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice", "clientId": "sales"}, READY)
    assert (await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/suspend"))[
        "suspended"
    ] is True
    own = await gateway.ask("alice", "GET", "/whatsapp/sessions/sales", at_once=True)
    assert own["suspended"] is True, "own writes are read"
    assert (await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/resume"))[
        "suspended"
    ] is False
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/restart")
    first = api.session("sales")["metadata"]["annotations"]["wasession.dev/restart"]
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/restart")
    assert api.session("sales")["metadata"]["annotations"]["wasession.dev/restart"] != first


@pytest.mark.parametrize(
    ("query", "annotation", "retention"),
    [
        ("", None, None),
        ("?logout=true", "true", None),
        ("?logout=true&deleteVolume=true", "true", "Delete"),
    ],
)
async def test_delete(
    api: ApiServer, gateway: Replica, query: str, annotation: str | None, retention: str | None
) -> None:
    await api.put("sales", {"owner": "alice"}, READY)
    await gateway.ask("alice", "DELETE", f"/whatsapp/sessions/sales{query}", 202)
    body = api.session("sales")
    assert "deletionTimestamp" in body["metadata"]
    assert body["metadata"].get("annotations", {}).get("wasession.dev/logout") == annotation
    assert body["spec"].get("storage", {}).get("retention", {}).get("whenDeleted") == retention
    await until(
        lambda: (session := gateway.gateway.sessions.get("sales")) is not None and session.deleting
    )
    assert (await gateway.ask("alice", "GET", "/whatsapp/sessions/sales"))["phase"] == "Terminating"
    await api.remove("sales")
    await until(lambda: gateway.gateway.sessions.get("sales") is None)


# --- restore-session ------------------------------------------------------------------------------


async def test_restore_answers_at_once_when_ready(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice"}, READY | {"restored": True})
    assert (await gateway.ask("alice", "POST", "/whatsapp/restore-session/sales"))[
        "isRestored"
    ] is True
    assert not any(call.startswith("PATCH") for call in api.calls)


async def test_restore_resumes_and_waits(api: ApiServer, gateway: Replica) -> None:
    await api.put(
        "sales", {"owner": "alice", "suspend": True}, {"phase": "Suspended", "sessionValid": True}
    )
    asked = asyncio.create_task(gateway.ask("alice", "POST", "/whatsapp/restore-session/sales"))
    await until(lambda: api.session("sales")["spec"]["suspend"] is False)
    await api.status("sales", phase="Restoring")
    await api.status("sales", **READY | {"restored": True})
    assert (await asked)["phase"] == "Ready"


async def test_restore_replaces_a_failed_pod_and_says_why_it_failed_again(
    api: ApiServer, gateway: Replica
) -> None:
    await api.put(
        "sales", {"owner": "alice"}, {"phase": "Failed", "sessionValid": True, "podUID": "1"}
    )
    asked = asyncio.create_task(
        gateway.ask("alice", "POST", "/whatsapp/restore-session/sales", 409)
    )
    await until(lambda: "annotations" in api.session("sales")["metadata"])
    why = {
        "type": "Ready",
        "status": "False",
        "reason": "BrowserFailed",
        "message": "no space",
        "lastTransitionTime": "2026-10-01T10:00:00Z",
    }
    await api.status("sales", phase="Restoring", podUID="2")
    await api.status("sales", phase="Failed", conditions=[why])
    problem = await asked
    assert problem["detail"] == "BrowserFailed: no space"
    assert problem["phase"] == "Failed"


async def test_restore_without_a_login_needs_a_person(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice"}, {"phase": "LoggedOut", "sessionValid": False})
    assert (await gateway.ask("alice", "POST", "/whatsapp/restore-session/sales", 409))[
        "phase"
    ] == "LoggedOut"


async def test_restore_is_bounded(api: ApiServer, start: Start) -> None:
    gateway = await start(restore_timeout="1s")
    await api.put("sales", {"owner": "alice"}, {"phase": "Restoring", "sessionValid": True})
    problem = await gateway.ask("alice", "POST", "/whatsapp/restore-session/sales?timeout=300", 504)
    assert problem["phase"] == "Restoring"


# --- what the pod answers -------------------------------------------------------------------------


async def test_messages_reach_the_pod(gateway: Replica, pod: Pod) -> None:
    order = {"to": "15550001111", "text": "Hello"}
    sent = await gateway.ask(
        "alice",
        "POST",
        "/whatsapp/messages",
        201,
        json={"clientId": "sales", **order},
        headers={"Idempotency-Key": "k1"},
    )
    assert sent["id"] == "true_15550001111@c.us_3EB0"
    headers = {"Authorization": f"Bearer {token('alice')}"}
    async with gateway.http.post(
        "/whatsapp/sessions/sales/messages", json=order, headers=headers
    ) as answer:
        assert answer.status == 201
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert "X-Internal" not in answer.headers
    form = aiohttp.FormData({"to": "15550001111", "caption": "A picture"})
    form.add_field("file", b"\x00" * 3_000_000, filename="a.png", content_type="image/png")
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/messages", 201, data=form)
    assert [message["key"] for message in pod.sent] == ["k1", None, None]
    assert pod.sent[0]["text"] == pod.sent[1]["text"] == "Hello"
    assert pod.sent[2]["file"] == b"\x00" * 3_000_000
    await gateway.ask("bob", "POST", "/whatsapp/messages", 404, json={"clientId": "sales", **order})
    assert len(pod.sent) == 3


async def test_an_unknown_outcome_says_where_to_look(gateway: Replica, pod: Pod) -> None:
    """The Location is one that the caller can use, with the owner for an admin."""
    await gateway.caught_up()
    message = {"to": "15550001111", "text": "Hello"}
    path = "/whatsapp/sessions/sales/messages/true_15550001111@c.us_3EB0"
    callers = ((token("alice"), path), (token("root", role="admin"), f"{path}?owner=alice"))
    for pod.unconfirmed, status in ((False, 201), (True, 504)):
        for bearer, location in callers:
            headers = {"Authorization": f"Bearer {bearer}"}
            async with gateway.http.post(
                "/whatsapp/messages",
                json={"clientId": "sales", **message}
                | ({"owner": "alice"} if "?" in location else {}),
                headers=headers,
            ) as answer:
                assert (answer.status, answer.headers["Location"]) == (status, location)
                assert answer.headers.get("Retry-After") == ("10" if status == 504 else None)
            async with gateway.http.get(location, headers=headers) as answer:
                assert answer.status == 200


async def test_an_unconfirmed_logout_is_reported_as_such(gateway: Replica, pod: Pod) -> None:
    pod.unconfirmed = True
    problem = await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/logout", 504)
    assert problem["detail"] == (
        "no confirmation within 60 s; the session may still be logged out: its state will tell"
    )


@pytest.mark.parametrize("number", ["+1 555 000 1111", "(555) 000-1111", "someone"])
async def test_a_malformed_number_is_refused_with_what_is_right(
    gateway: Replica, pod: Pod, number: str
) -> None:
    message = {"clientId": "sales", "to": number, "text": "Hello"}
    problem = await gateway.ask("alice", "POST", "/whatsapp/messages", 422, json=message)
    assert "phone number with country code, such as 15551234567" in problem["detail"]
    pairing = {"method": "PairingCode", "phoneNumber": number}
    session = {"clientId": "new", "pairing": pairing}
    problem = await gateway.ask("alice", "POST", "/whatsapp/sessions", 422, json=session)
    assert "digits only, such as 15551234567" in problem["detail"]


async def test_a_token_without_its_scheme_is_refused_with_what_is_right(gateway: Replica) -> None:
    for header in (token("alice"), f"Token {token('alice')}", f"Bearer{token('alice')}"):
        async with gateway.http.get(
            "/whatsapp/sessions", headers={"Authorization": header}
        ) as answer:
            assert answer.status == 401
            assert (await answer.json())[
                "detail"
            ] == "the header must be: Authorization: Bearer TOKEN"


async def test_uploads_have_limits(start: Start, pod: Pod) -> None:
    gateway = await start(max_upload=1000)

    async def endless() -> object:
        for _ in range(10):
            yield b"x" * 100

    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    await gateway.ask(
        "alice",
        "POST",
        "/whatsapp/sessions/sales/messages",
        413,
        data=b"x" * 1001,
        headers=multipart,
    )
    await gateway.ask(
        "alice", "POST", "/whatsapp/sessions/sales/messages", 411, data=endless(), headers=multipart
    )
    plain = {"Content-Type": "application/json"}
    await gateway.ask(
        "alice", "POST", "/whatsapp/messages", 413, data=b'"' + b"x" * 10_000_000, headers=plain
    )
    assert pod.sent == []


async def test_pairing_as_the_pod_has_it(gateway: Replica, pod: Pod) -> None:
    problem = await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/pairing", 404)
    assert problem["detail"] == "no phone can be linked now"
    pod.code = "2@abc"
    assert (await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/pairing"))[
        "code"
    ] == "2@abc"
    headers = {"Authorization": f"Bearer {token('alice')}", "Accept": "image/png"}
    async with gateway.http.get("/whatsapp/sessions/sales/pairing", headers=headers) as answer:
        assert (answer.content_type, (await answer.read())[:4]) == ("image/png", b"\x89PNG")
        assert answer.headers["Cache-Control"] == "no-store"
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/pairing/refresh", 202)
    await gateway.ask("bob", "GET", "/whatsapp/sessions/sales/pairing", 404)


async def test_chats_and_logout(gateway: Replica, pod: Pod) -> None:
    [chat] = (
        await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats?limit=7&continue=abc")
    )["items"]
    assert chat["query"] == {"limit": "7", "continue": "abc"}
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/logout", 204)
    assert pod.logouts == 1


async def test_deliveries_as_the_pod_has_them(api: ApiServer, gateway: Replica, pod: Pod) -> None:
    path = "/whatsapp/sessions/sales/deliveries"
    pod.deliveries = [{"name": "crm", "state": "Failing", "since": now(), "pending": 3}]
    pod.dead_letters = [
        {
            "eventId": "5c1f0e7a9b3d4c62-7",
            "kind": "message",
            "at": now(),
            "attempts": 5,
            "error": "HTTP 422",
        }
    ]
    assert await gateway.ask("alice", "GET", path) == {"items": pod.deliveries}
    dead_letters = await gateway.ask("alice", "GET", f"{path}/crm/dead-letters")
    assert dead_letters == {"items": pod.dead_letters}
    replayed = await gateway.ask("alice", "POST", f"{path}/crm/dead-letters/replay", 202)
    assert replayed == {"count": 1}
    await gateway.ask("alice", "POST", f"{path}/crm/pause", 204)
    assert pod.deliveries[0]["state"] == "Paused"
    await gateway.ask("alice", "POST", f"{path}/crm/resume", 204)
    assert pod.deliveries[0]["state"] == "Delivering"
    after = {"after": "5c1f0e7a9b3d4c62-7"}
    await gateway.ask("alice", "POST", f"{path}/crm/replay", 202, json=after)
    assert pod.replayed == [after]
    for wrong in ({}, {"after": 7}, {**after, "count": 1}):
        await gateway.ask("alice", "POST", f"{path}/crm/replay", 422, json=wrong)
    for method, what in (
        ("GET", "dead-letters"),
        ("POST", "pause"),
        ("POST", "dead-letters/replay"),
    ):
        await gateway.ask("alice", method, f"{path}/other/{what}", 404)
        await gateway.ask("bob", method, f"{path}/crm/{what}", 404)
        await gateway.ask("alice", method, f"{path}/..%2fstate/{what}", 422)
    delivery = {"name": "crm", "state": "Failing", "since": now(), "error": "HTTP 500"}
    await api.status("sales", delivery=[delivery])
    session = await gateway.ask("alice", "GET", "/whatsapp/sessions/sales")
    assert session["delivery"] == [delivery]


async def test_a_session_without_a_pod_says_so(api: ApiServer, gateway: Replica) -> None:
    await api.put("sales", {"owner": "alice"}, {"phase": "Suspended"})
    for method, path in (("GET", "pairing"), ("POST", "logout"), ("GET", "chats")):
        problem = await gateway.ask("alice", method, f"/whatsapp/sessions/sales/{path}", 503)
        assert problem["phase"] == "Suspended"


async def test_a_pod_that_moves_is_looked_up_again(
    api: ApiServer, gateway: Replica, pod: Pod
) -> None:
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    asked = api.calls["GET /api/v1/namespaces/sessions/pods"]
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    assert api.calls["GET /api/v1/namespaces/sessions/pods"] == asked, "where the pod is, is known"
    api.add_pod("sales", pod_address(9))
    pod.token = "another session has this address now"
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats", 503)


async def test_a_token_is_rotated(
    api: ApiServer, gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """The pod has the new token up to a minute after the status has its epoch."""
    caplog.set_level("DEBUG")
    uid = pod.state["sessionUid"]
    first, second, third = (derive_token(KEY, uid, epoch) for epoch in range(3))

    async def ask(expect: int = 200) -> Any:
        return await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats", expect)

    await ask()
    await api.status("sales", tokenEpoch=1)
    await ask()  # the pod does not know it yet
    pod.token = second
    await ask()
    assert pod.refused == [first]
    await api.status("sales", tokenEpoch=2)
    another = Replica(api)
    await another.start()
    try:
        await another.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
        assert pod.refused == [first, third]
        pod.token = third
        await another.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
        assert pod.refused == [first, third, second]
    finally:
        await another.stop()
    form = aiohttp.FormData({"to": "15550001111"})
    form.add_field("file", b"x" * 3_000_000, filename="a.bin")
    await gateway.ask("alice", "POST", "/whatsapp/sessions/sales/messages", 201, data=form)
    assert pod.sent[0]["file"] == b"x" * 3_000_000, (
        "a body that can be sent only once is sent with the right one"
    )

    pod.token, pod.refused = "nobody's", []
    problem = await ask(503)
    assert problem["detail"] == "the session's pod rejects the gateway's token"
    assert pod.refused == [third, second], "each once"
    output = json.dumps(
        [
            problem,
            [{key: str(value) for key, value in vars(record).items()} for record in caplog.records],
        ]
    )
    assert not [which for which in (first, second, third) if which in output]
    assert key_file() not in output


async def test_the_master_key_is_rotated(gateway: Replica, pod: Pod) -> None:
    """kubelet replaces the mounted file; pods follow within a minute."""
    new = bytes(32)
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    replacement = gateway.key_file.with_name("new")
    replacement.write_text(key_file(new))
    replacement.rename(gateway.key_file)
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    pod.token = derive_token(new, pod.state["sessionUid"], 0)
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    gateway.key_file.unlink()
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")


async def test_without_its_key_the_gateway_waits(
    start: Start, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start()
    gateway.key_file.unlink()

    async def readiness() -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(f"{gateway.management}/readyz") as got:
            return got.status, (await got.json()).get("reason", "")

    status, reason = await readiness()
    assert status == 503
    assert f"cannot read the session key {gateway.key_file}" in reason
    problem = await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats", 503)
    assert problem["detail"] == "the gateway has no key for session pods yet"
    for invalid in ("", "x" * 44, key_file()[:-1], key_file() + "\n", key_file(bytes(33))):
        gateway.key_file.write_text(invalid)
        status, reason = await readiness()
        assert status == 503
        assert "is invalid: it must" in reason
        assert not invalid or invalid not in caplog.text + reason
    gateway.key_file.write_text(key_file())
    assert await readiness() == (200, "")
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    warnings = [record for record in caplog.records if "no session key" in record.getMessage()]
    assert 1 <= len(warnings) <= 6, "one for each change"


async def test_what_the_gateway_has_no_right_to(api: ApiServer, gateway: Replica, pod: Pod) -> None:
    api.forbidden = "pods"
    problem = await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats", 503)
    assert problem["detail"] == "the session's pod cannot be looked up at the moment"
    api.forbidden = "DELETE"
    problem = await gateway.ask("alice", "DELETE", "/whatsapp/sessions/sales", 422)
    assert problem["detail"].startswith("the gateway cannot DELETE")


async def test_an_answer_that_a_pod_does_not_finish(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller can tell that the response is incomplete."""
    await gateway.caught_up()
    pod.torn = True
    headers = {"Authorization": f"Bearer {token('alice')}"}
    with pytest.raises(aiohttp.ClientPayloadError):
        async with gateway.http.get("/whatsapp/sessions/sales/chats", headers=headers) as answer:
            await answer.read()
    pod.torn = False
    await gateway.ask("alice", "GET", "/whatsapp/sessions/sales/chats")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_another_sessions_pod_is_never_asked(
    api: ApiServer, gateway: Replica, pod: Pod
) -> None:
    """A predecessor of the same name has left its pod and Secret behind."""
    await api.remove("sales")
    await api.put("sales", {"owner": "bob", "clientId": "sales"}, READY)
    await until(lambda: gateway.gateway.sessions.find("sales", "bob") is not None)
    await gateway.ask("bob", "GET", "/whatsapp/sessions/sales/chats", 503)


# --- the frame around it --------------------------------------------------------------------------


async def test_every_answer_has_strict_headers_and_problems_are_problems(gateway: Replica) -> None:
    for path, status in (
        ("/", 200),
        ("/openapi.json", 200),
        ("/whatsapp/sessions", 401),
        ("/nowhere", 404),
    ):
        async with gateway.http.get(path) as answer:
            assert answer.status == status
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Server"] == "wasession"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert status == 200 or answer.content_type == "application/problem+json"
    async with gateway.http.put(
        "/whatsapp/sessions", headers={"Authorization": f"Bearer {token('a')}"}
    ) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD,POST")


async def test_other_pages_read_what_a_session_pod_sends(start: Start, pod: Pod) -> None:
    gateway = await start(cors_origins=["https://app.example"])
    for origin, expected in (
        ("https://app.example", "https://app.example"),
        ("https://evil.example", None),
    ):
        headers = {"Authorization": f"Bearer {token('alice')}", "Origin": origin}
        async with gateway.http.get("/whatsapp/sessions/sales/chats", headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers.get("Access-Control-Allow-Origin") == expected


async def test_cors_is_an_allow_list(start: Start) -> None:
    gateway = await start(cors_origins=["https://app.example"])
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
        async with gateway.http.options(
            "/whatsapp/messages", headers={"Origin": origin, **preflight}
        ) as answer:
            assert answer.status == 204
            assert answer.headers.get("Access-Control-Allow-Origin") == (
                origin if allowed else None
            )
            assert (
                "Authorization" in answer.headers.get("Access-Control-Allow-Headers", "")
            ) is allowed
        async with gateway.http.get("/whatsapp/sessions", headers={"Origin": origin}) as answer:
            assert answer.status == 401, "a page may read why"
            assert answer.headers.get("Access-Control-Allow-Origin") == (
                origin if allowed else None
            )
            assert "Origin" in answer.headers.getall("Vary")
        async with gateway.http.get(
            "/socket.io/?EIO=4&transport=polling", headers={"Origin": origin}
        ) as answer:
            assert answer.status == (200 if allowed else 403)


async def test_rate_limits(start: Start) -> None:
    gateway = await start(subject_rate=0.001, subject_burst=3)
    for _ in range(3):
        await gateway.ask("alice", "GET", "/whatsapp/sessions")
    await gateway.ask("alice", "GET", "/whatsapp/sessions", 429)
    await gateway.ask("bob", "GET", "/whatsapp/sessions")
    gateway = await start(address_rate=0.001, address_burst=3, trusted_proxies=1)

    async def status(forwarded: str) -> int:
        async with gateway.http.get(
            "/openapi.json", headers={"X-Forwarded-For": forwarded}
        ) as answer:
            assert (answer.status == 429) is ("Retry-After" in answer.headers)
            return answer.status

    assert [await status(f"spoofed-{number}, 192.0.2.1") for number in range(4)] == [
        200,
        200,
        200,
        429,
    ]
    assert [await status(f"2001:db8::{number}") for number in range(4)] == [200, 200, 200, 429], (
        "one network is one caller"
    )
    assert await status("192.0.2.2") == 200


async def test_tokens_never_reach_the_log(
    gateway: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = token("alice")
    async with gateway.http.get(
        f"/whatsapp/sessions?token={secret}", headers={"Authorization": f"Bearer {secret}"}
    ):
        pass
    async with gateway.http.get(f"/whatsapp/sessions?access_token={secret}") as answer:
        assert answer.status == 401, "tokens in addresses are not read"
    assert any(record.getMessage() == "request" for record in caplog.records)
    assert secret not in json.dumps(
        [{key: str(value) for key, value in vars(record).items()} for record in caplog.records]
    )


async def test_phone_numbers_never_reach_the_log(
    gateway: Replica, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    number = "15550001111"
    headers = {"Authorization": f"Bearer {token('alice')}"}
    await gateway.caught_up()
    for path, status in (
        (f"/whatsapp/sessions/sales/messages/true_{number}@c.us_3EB0", 200),
        (f"/whatsapp/sessions/sales/messages/true_{number}", 422),
        (f"/whatsapp/sessions/sales/chats?continue={number}", 200),
        (f"/whatsapp/sessions/sales/chats/{number}@c.us", 404),
        (f"/whatsapp/sessions/{number}", 404),
        (f"/{number}", 404),
    ):
        async with gateway.http.get(path, headers=headers) as answer:
            assert answer.status == status, path
    records = [record for record in caplog.records if record.getMessage() == "request"]
    assert [vars(record).get("route") for record in records] == [
        "/whatsapp/sessions/{clientId}/messages/{messageId}",
        "/whatsapp/sessions/{clientId}/messages/{messageId}",
        "/whatsapp/sessions/{clientId}/chats",
        None,
        "/whatsapp/sessions/{clientId}",
        None,
    ]
    assert [vars(record).get("session") for record in records] == ["sales", None, "sales"] + 3 * [
        None
    ]
    assert number not in json.dumps(
        [{key: str(value) for key, value in vars(record).items()} for record in caplog.records]
    )


async def test_metrics_and_probes_are_apart(api: ApiServer, gateway: Replica) -> None:
    await gateway.ask("alice", "GET", "/whatsapp/sessions")
    async with aiohttp.ClientSession(gateway.management) as http:
        for path, expected in (
            ("/livez", "ok"),
            ("/readyz", "ok"),
            ("/metrics", 'operation="listSessions",status="200"'),
        ):
            async with http.get(path) as answer:
                assert answer.status == 200
                assert expected in await answer.text()
    async with gateway.http.get("/metrics") as answer:
        assert answer.status == 404
