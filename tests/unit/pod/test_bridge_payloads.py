"""What ``bridge.js`` makes of WhatsApp's models, in Node.js: typed, valid, or a gap."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from wasession_api.session_pod.events import PAYLOADS, EventKind
from wasession_api.session_pod.messages import MessageStatus
from wasession_pod.browser.launch import BRIDGE

PAGE = Path(__file__).with_name("bridge_page.js")
FRIEND = "15550001111@c.us"
GROUP = "120363000000000001@g.us"
ME = "15551234567@c.us"
MESSAGE = f"false_{FRIEND}_3A0123456789ABCDEF01"
JPEG = "/9j/4AAQSkZJRg=="
ABSENT: dict[str, Any] = {"$absent": True}
THROWS: dict[str, Any] = {"$throws": "not of this release"}


class Page:
    """``bridge_page.js`` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, request: str, **values: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"request": request, **values}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer.get("value")

    def message(self, **fields: Any) -> MessageStatus:
        usual: dict[str, Any] = {"id": key(MESSAGE), "from": wid(FRIEND), "type": "chat", "t": 1e9}
        answer = self.ask("message", id=MESSAGE, fields=usual | fields)
        return MessageStatus.model_validate(answer)

    def done(self, module: str, name: str, *values: Any, **options: Any) -> list[Any]:
        found: list[Any] = self.ask(
            "done", module=module, name=name, values=list(values), **options
        )
        return found


def wid(text: str) -> dict[str, Any]:
    return {"$wid": text}


def key(text: str) -> dict[str, Any]:
    from_me, remote, message_id, *participant = text.split("_")
    parts = {"fromMe": from_me == "true", "remote": wid(remote), "id": message_id}
    return {"$key": parts | ({"participant": wid(participant[0])} if participant else {})}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    node = shutil.which("node")
    assert node is not None
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [node, str(PAGE), str(BRIDGE)], stdin=pipe, stdout=pipe, text=True
    ) as process:
        yield Page(process)
        process.kill()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"body": "hi"}, {"text": "hi", "forwarded": False, "viewOnce": False}),
        (
            {"type": "location", "lat": 1.5, "lng": "-2", "loc": "Place\nStreet 1\nTown"},
            {
                "location": {
                    "latitude": 1.5,
                    "longitude": -2.0,
                    "name": "Place",
                    "address": "Street 1\nTown",
                    "live": False,
                }
            },
        ),
        (
            {"type": "location", "lat": 0, "lng": 0, "isLive": True, "body": JPEG},
            {"location": {"latitude": 0.0, "longitude": 0.0, "live": True}, "text": None},
        ),
        ({"type": "location", "lat": 91, "lng": 0}, {"location": None}),
        (
            {"type": "vcard", "body": "BEGIN:VCARD", "vcardFormattedName": "Ada"},
            {"contacts": [{"name": "Ada", "vcard": "BEGIN:VCARD"}], "text": None},
        ),
        (
            {
                "type": "multi_vcard",
                "vcardList": [{"displayName": "Ada", "vcard": "A"}, {"vcard": 7}, {"vcard": "B"}],
            },
            {"contacts": [{"name": "Ada", "vcard": "A"}, {"vcard": "B"}]},
        ),
        (
            {
                "type": "poll_creation",
                "pollName": "When?",
                "pollOptions": [{"name": "now", "localId": 0}, {"name": "later", "localId": 1}],
                "pollSelectableOptionsCount": 1,
            },
            {"poll": {"question": "When?", "options": ["now", "later"], "multiple": False}},
        ),
        (
            {"type": "poll_creation", "pollName": 7, "pollOptions": THROWS},
            {"poll": {"question": "", "options": [], "multiple": True}},
        ),
        ({"mentionedJidList": [wid(ME), {}, wid(FRIEND)]}, {"mentions": [ME, FRIEND]}),
        ({"mentionedJidList": []}, {"mentions": None}),
        ({"isForwarded": True, "isViewOnce": True}, {"forwarded": True, "viewOnce": True}),
        (
            {"type": "image", "mimetype": "image/jpeg", "size": 5, "body": JPEG, "caption": "look"},
            {"media": {"mimeType": "image/jpeg", "size": 5, "thumbnail": JPEG}, "text": "look"},
        ),
        (
            {"type": "image", "mimetype": "image/jpeg", "body": JPEG + " or not"},
            {"media": {"mimeType": "image/jpeg"}},
        ),
        (
            {
                "quotedStanzaID": "3A11",
                "quotedMsgId": key(f"true_{FRIEND}_3EB011"),
                "quotedParticipant": wid(ME),
                "quotedMsg": {"type": "chat", "body": "x" * 1000},
            },
            {
                "replyTo": f"true_{FRIEND}_3EB011",
                "quoted": {"from": ME, "type": "chat", "text": "x" * 512},
            },
        ),
        ({"quotedStanzaID": "3A11", "quotedMsg": THROWS}, {"quoted": None}),
        ({"from": wid("98765432101234@lid")}, {"phoneNumber": "15550009999"}),
    ],
)
def test_what_a_message_has(page: Page, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = page.message(**fields).dump()
    assert {name: found.get(name) for name in expected} == expected


# --- what happens to messages ---------------------------------------------------------------------

EDIT = ("WAWebDBProcessEditProtocolMsgs", "processEditProtocolMsgs")
REVOKE = ("WAWebDBProcessRevokeMsgs", "processRevokeMsgs")
REACTION = ("WAWebReactionsMsgAction", "addOrUpdateReactionsModelCollection")
VOTE = ("WAWebDBPollsUpsertVotes", "upsertVotesDb")
MEMBERS = ("WAWebUpdateDbForGroupActionApi", "updateDBForGroupAction")
PARENT = {"id": key(MESSAGE), "type": "chat", "body": "before", "from": wid(FRIEND)}
POLL = {
    "id": key(MESSAGE),
    "pollOptions": [{"name": name, "localId": i} for i, name in enumerate("abc")],
}
row = {
    "parentMsgKey": MESSAGE,
    "senderUserJid": FRIEND,
    "reactionText": "\N{THUMBS UP SIGN}",
    "timestamp": 2_000_000,
}
a_vote = {
    "parentMsgKey": key(MESSAGE),
    "sender": wid(ME),
    "senderTimestampMs": 2_000_000,
    "selectedOptionLocalIds": [0, 2],
}


def numbered(number: int) -> str:
    """A message that no other test changes: each change is told once."""
    return f"false_{FRIEND}_3A{number:018}"


def revoke(old: str, new: str, **fields: Any) -> dict[str, Any]:
    usual = {"subtype": "sender_revoke", "sender": wid(FRIEND), "revokeTimestamp": 2000}
    return {"revokeMsgKey": key(old), "newMsgKey": key(new)} | usual | fields


def test_an_edit_that_counted(page: Page) -> None:
    edited = {"body": "after", "latestEditSenderTimestampMs": 2_000_500}
    applied = [{"parentMsg": PARENT, "editedMsgData": edited}]
    [event] = page.done(*EDIT, [], result=applied)
    assert (event["type"], event["data"]) == (
        "chat.edit",
        {
            "id": MESSAGE,
            "chatId": FRIEND,
            "from": FRIEND,
            "phoneNumber": "15550001111",
            "fromMe": False,
            "at": "1970-01-01T00:33:20.500Z",
            "text": "after",
        },
    )
    assert page.done(*EDIT, [], result=applied) == [], "it is told once"
    assert page.done(*EDIT, [{"body": "forged"}], result=[]) == []


def test_deletions(page: Page) -> None:
    one, other = numbered(1), numbered(2)
    [event] = page.done(*REVOKE, [revoke(one, other)])
    assert (event["type"], event["data"]["id"]) == ("chat.deletion", one)
    assert (event["data"]["from"], event["data"]["at"][:19]) == (FRIEND, "1970-01-01T00:33:20")


@pytest.mark.parametrize(
    ("old", "new", "subtype", "told"),
    [
        (f"true_{FRIEND}_A", f"false_{FRIEND}_B", "sender_revoke", False),
        (f"false_{GROUP}_A_{ME}", f"false_{GROUP}_B_{FRIEND}", "sender_revoke", False),
        (f"false_{GROUP}_A_{ME}", f"false_{GROUP}_B_{FRIEND}", "admin_revoke", True),
        (f"false_{FRIEND}_A", f"false_{FRIEND}_B", "admin_revoke", False),
        (f"false_{GROUP}_A_{ME}", f"false_{FRIEND}_B", "admin_revoke", False),
    ],
)
def test_who_may_delete(page: Page, old: str, new: str, subtype: str, told: bool) -> None:
    assert bool(page.done(*REVOKE, [revoke(old, new, subtype=subtype)])) == told


def test_reactions(page: Page) -> None:
    [given_] = page.done(*REACTION, row, {"allowNotify": True})
    [taken] = page.done(*REACTION, row | {"reactionText": "", "timestamp": 3_000_000}, {})
    assert (given_["type"], given_["data"]["emoji"]) == ("chat.reaction", "\N{THUMBS UP SIGN}")
    assert taken["data"]["emoji"] is None
    assert page.done(*REACTION, row | {"timestamp": 999_000}, {}) == [], "from before linking"


def test_votes(page: Page) -> None:
    [event] = page.done(*VOTE, [a_vote], result=[a_vote], known={MESSAGE: POLL})
    assert (event["type"], event["data"]["options"]) == ("chat.vote", ["a", "c"])
    assert event["data"]["fromMe"] is True
    unknown = a_vote | {"parentMsgKey": key(numbered(3)), "senderTimestampMs": 2_000_001}
    assert [event["reason"] for event in page.done(*VOTE, [unknown])] == ["vote"], "a gap"


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ({"actionType": "add"}, "add"),
        ({"actionType": "add", "isInvite": True}, "join"),
        ({"actionType": "add", "reason": "invite"}, "join"),
        ({"actionType": "remove"}, "remove"),
        ({"actionType": "promote"}, "promote"),
        ({"actionType": "demote"}, "demote"),
        ({"actionType": "subject"}, None),
    ],
)
def test_changes_of_groups(page: Page, action: dict[str, Any], told: str | None) -> None:
    meta = {"chatId": wid(GROUP), "author": wid(FRIEND), "ts": 2000 + len(str(action))}
    events = page.done(*MEMBERS, meta, action | {"participants": [{"id": wid(ME)}]})
    assert [(e["data"]["action"], e["data"]["participants"]) for e in events] == (
        [(told, [ME])] if told else []
    )


def test_who_leaves_a_group_removes_nobody_else(page: Page) -> None:
    meta = {"chatId": wid(GROUP), "author": wid(FRIEND), "ts": 2000}
    left = {"actionType": "remove", "participants": [{"id": wid(FRIEND)}]}
    [event] = page.done(*MEMBERS, meta, left)
    assert event["data"]["action"] == "leave"


def test_calls(page: Page) -> None:
    fields = {"id": "C1", "sender": wid(FRIEND), "isVideo": True, "offerTime": 2000}
    [event] = page.ask("call", fields=fields)
    assert (event["type"], event["data"]["video"], event["data"]["group"]) == (
        "chat.call",
        True,
        False,
    )


# --- whatever the models hold ---------------------------------------------------------------------

odd = st.one_of(
    st.none(),
    st.just(ABSENT),
    st.just(THROWS),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.just("x" * 70_000),
    st.just({"$utf16": [0xD83D, 0x41]}),
    st.lists(st.one_of(st.none(), st.integers(), st.just({}), st.just({"name": "a"})), max_size=3),
    st.just([{"name": "x" * 1000, "vcard": "x" * 20_000, "displayName": []}]),
    st.just([{"name": "x", "vcard": "x", "displayName": 7}] * 300),
    st.just([wid(FRIEND)] * 2000),
    st.just({}),
    st.just(wid(GROUP)),
    st.just(wid("x" * 1000)),
    st.just(key(MESSAGE)),
)
FIELDS = (
    "lat", "lng", "loc", "isLive", "vcardFormattedName", "vcardList", "body", "pollName",
    "pollOptions", "pollSelectableOptionsCount", "mentionedJidList", "isForwarded", "isViewOnce",
    "quotedMsg", "quotedStanzaID", "quotedParticipant", "thumbnail", "mimetype", "caption", "ack",
)  # fmt: skip
types = st.sampled_from(["chat", "location", "vcard", "multi_vcard", "poll_creation", "image"])
fuzz = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def odd_fields(usual: dict[str, Any], names: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, odd)).map(
        lambda fields: usual | fields
    )


@fuzz
@given(type_=types | odd, fields=odd_fields({}, FIELDS))
def test_every_message_is_valid(page: Page, type_: Any, fields: dict[str, Any]) -> None:
    page.message(type=type_, **fields)


CHANGES: dict[EventKind, tuple[tuple[str, str], dict[str, Any]]] = {
    EventKind.DELETION: (REVOKE, revoke(numbered(4), numbered(5))),
    EventKind.REACTION: (REACTION, row),
    EventKind.VOTE: (VOTE, a_vote),
    EventKind.EDIT: (EDIT, {"body": "x", "latestEditSenderTimestampMs": 1}),
    EventKind.GROUP: (MEMBERS, {"actionType": "add", "participants": [{"id": wid(ME)}]}),
}


@fuzz
@given(kind=st.sampled_from(list(CHANGES)), data=st.data())
def test_every_change_is_valid_or_a_gap(page: Page, kind: EventKind, data: st.DataObject) -> None:
    (module, name), usual = CHANGES[kind]
    fields = data.draw(odd_fields(usual, tuple(usual)))
    values: list[Any] = [[fields]]
    if kind is EventKind.GROUP:
        meta = {"chatId": wid(GROUP), "author": wid(ME), "ts": 1}
        values = [data.draw(odd_fields(meta, tuple(meta))), fields]
    elif kind is EventKind.REACTION:
        values = [fields, {}]
    result = [{"parentMsg": PARENT, "editedMsgData": fields}] if kind is EventKind.EDIT else None
    events = page.done(module, name, *values, result=result, known={MESSAGE: POLL})
    for event in events:
        if event["type"] != "chat.gap":
            assert event["type"] == f"chat.{kind}"
            payload(kind).model_validate(event["data"])


def payload(kind: EventKind) -> type[BaseModel]:
    return PAYLOADS[kind]


@fuzz
@given(fields=odd_fields({}, ("id", "sender", "peerJid", "isVideo", "isGroup", "offerTime")))
def test_every_call_is_valid_or_a_gap(page: Page, fields: dict[str, Any]) -> None:
    for event in page.ask("call", fields=fields):
        if event["type"] != "chat.gap":
            payload(EventKind.CALL).model_validate(event["data"])
