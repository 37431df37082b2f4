"""Events of a page, for tests of the outbox."""

from __future__ import annotations

from typing import Any

from wasession_pod.state.observation import PageEvent

FRIEND, GROUP = "15550001111@c.us", "120363000000000001@g.us"
AT = "2026-01-01T00:00:00.000Z"


def message(stanza: str = "3A00", chat: str = FRIEND, **fields: Any) -> PageEvent:
    from_me = "true" if fields.get("fromMe") else "false"
    data = {
        "id": f"{from_me}_{chat}_{stanza}",
        "chatId": chat,
        "from": FRIEND,
        "fromMe": False,
        "type": "chat",
        "text": "hello",
        "sentAt": AT,
    }
    return PageEvent(type="chat.message", data=data | fields)


def ack(level: int, stanza: str = "3E", chat: str = FRIEND, **fields: Any) -> PageEvent:
    data = {"id": f"true_{chat}_{stanza}", "chatId": chat, "ack": level, "at": AT}
    return PageEvent(type="chat.ack", data=data | fields)


def change(kind: str, second: int = 0, stanza: str = "3A00", **fields: Any) -> PageEvent:
    """Return an edit, deletion, reaction or vote."""
    data: dict[str, Any] = {
        "id": f"false_{FRIEND}_{stanza}",
        "chatId": FRIEND,
        "from": FRIEND,
        "at": f"2026-01-01T00:00:{second:02}.000Z",
    }
    return PageEvent(type=f"chat.{kind}", data=data | fields)
