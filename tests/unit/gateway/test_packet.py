"""Hostile Socket.IO packets: decoded, or taken as a disconnect, never an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
import socketio
from hypothesis import given
from hypothesis import strategies as st
from wasession_gateway.socketio_connections import NAMESPACE, Packet

GOODBYE = (socketio.packet.DISCONNECT, NAMESPACE, None)


def seen(encoded: Any) -> tuple[int, Any, Any]:
    packet = Packet(encoded_packet=encoded)
    return packet.packet_type, packet.namespace, packet.data


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        ('0/whatsapp,{"token":"x"}', (socketio.packet.CONNECT, NAMESPACE, {"token": "x"})),
        ("0/whatsapp,", (socketio.packet.CONNECT, NAMESPACE, None)),
        (
            '2/whatsapp,7["init",{"clientId":"a"}]',
            (socketio.packet.EVENT, NAMESPACE, ["init", {"clientId": "a"}]),
        ),
        ("1/whatsapp,", (socketio.packet.DISCONNECT, NAMESPACE, None)),
    ],
)
def test_sense(encoded: str, expected: tuple[int, Any, Any]) -> None:
    assert seen(encoded) == expected


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        {},
        [],
        0,
        "x",
        "9",
        "2",
        "2/whatsapp,",
        "2/whatsapp,{}",
        "2/whatsapp,[]",
        '2/whatsapp,"init"',
        "2/whatsapp,[",
        '2/whatsapp,["connect",{"aiohttp.request":{}}]',
        '2/whatsapp,["disconnect"]',
        '2/whatsapp,[{"a":1}]',
        "2/whatsapp,[null]",
        "0/whatsapp,[]",
        '0/whatsapp,"x"',
        '4/whatsapp,{"message":"x"}',
        "3/whatsapp,1",
        "3/whatsapp,1{}",
        '51-/whatsapp,["init",{"_placeholder":true,"num":0}]',
        '59999999999-/whatsapp,["init"]',
        "61-/whatsapp,1[]",
        "2/whatsapp," + "[" * 30_000,
        "2" + "1" * 30_000,
        b"2[]",
        b"\xff",
        {"type": 2},
    ],
)
def test_nonsense(encoded: Any) -> None:
    assert seen(encoded) == GOODBYE


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.from_regex(r"[0-9][0-9]?-?(/whatsapp,)?[0-9]*[\[{].*", fullmatch=True),
    )
)
def test_anything(encoded: Any) -> None:
    kind, _, data = seen(encoded)
    assert kind in (
        socketio.packet.CONNECT,
        socketio.packet.DISCONNECT,
        socketio.packet.EVENT,
        socketio.packet.ACK,
    )
    json.dumps(data)
