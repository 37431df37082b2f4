"""Sessions that stand already: copies in etcd of what the operator has made of a few.

Creating 20,000 sessions keeps two cores busy for hours, nearly all of it in the API server. The
operator makes one session for each node. Every further one is a copy of their objects, byte by
byte, with another name, other UIDs, another address and what is derived of them: all of the same
length, as the values are protobuf. That a starting operator writes nothing to them shows that they
are what it would have made itself.
"""

from __future__ import annotations

import base64
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from support.cluster.control_plane import ETCD
from wasession_api.names import ANNOTATION_TEMPLATE_HASH, object_name, token_secret_name
from wasession_api.session_pod.token_derivation import derive_token, token_id
from wasession_api.v1alpha1 import CLASS_PLURAL, PLURAL
from wasession_operator import objects
from wasession_operator.master_key import MasterKey
from wasession_operator.plan.parse import parse_session
from wasession_operator.plan.session_class import parse_class
from wasession_operator.settings import Settings

from bench.operator.rig import CLASS, IMAGE, NAMESPACE, Rig

CLAIMS = "persistentvolumeclaims"


@dataclass(frozen=True)
class Original:
    """A session that the operator has made, with its objects as etcd has them."""

    name: str
    address: str
    uids: Mapping[str, str]  # by kind
    derived: Sequence[str]  # of the session's name and UID
    values: Mapping[str, bytes]  # by key


class Copies:
    """Copies of sessions that run in a rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._key = MasterKey(rig.directory / "master-key").of(NAMESPACE)
        self._settings = Settings(session_image=IMAGE)
        self._originals: list[Original] = []

    async def read(self, names: Sequence[str]) -> None:
        """Read the originals: sessions that the operator has made.

        Before, their pods get addresses that are as long as those of the copies.
        """
        for number, name in enumerate(names):
            address = address_of(number)
            status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
            await self._rig.api.patch("pods", NAMESPACE, object_name(name), status, "status")
        await self._rig.settled()
        self._class = parse_class(await self._rig.api.get(CLASS_PLURAL, None, CLASS))
        async with self._etcd() as etcd:
            self._originals = [await self._read(etcd, *one) for one in enumerate(names)]

    async def put(self, names: Sequence[str]) -> None:
        """Put a copy with each of these names; return when the API server has them.

        A transaction has one object of each resource: a watch that the API server has ended goes on
        after the version of its last event, which must not be that of others, too.
        """
        first = len(self._originals)
        turns = zip(itertools.cycle(self._originals), enumerate(names, first), strict=False)
        async with self._etcd() as etcd:
            for original, (number, name) in turns:
                puts = [{"requestPut": put} for put in self._puts(original, number, name)]
                await _ask(etcd, "txn", {"success": puts})
        await self._rig.until_ready(first + len(names))
        await self._rig.until_running(first + len(names))

    def _etcd(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(ETCD, connector=self._rig.network.connector())

    async def _read(self, etcd: aiohttp.ClientSession, number: int, name: str) -> Original:
        api = self._rig.api
        session = await api.get(PLURAL, NAMESPACE, name)
        pod = await api.get("pods", NAMESPACE, object_name(name))
        claim = await api.get(CLAIMS, NAMESPACE, object_name(name))
        secret = await api.get("secrets", NAMESPACE, token_secret_name(name))
        volume = await api.get("persistentvolumes", None, claim["spec"]["volumeName"])
        made = {"session": session, "pod": pod, "claim": claim, "secret": secret, "volume": volume}
        self._spec = parse_session(session, None, self._class)[0].spec
        derived = self._derive(name, session["metadata"]["uid"])
        if derived[0] != pod["metadata"]["annotations"][ANNOTATION_TEMPLATE_HASH]:
            raise RuntimeError(f"the pod of {name} has not the template that this benchmark knows")
        keys = [
            f"/registry/wasession.dev/{PLURAL}/{NAMESPACE}/{name}",
            f"/registry/pods/{NAMESPACE}/{object_name(name)}",
            f"/registry/{CLAIMS}/{NAMESPACE}/{object_name(name)}",
            f"/registry/secrets/{NAMESPACE}/{token_secret_name(name)}",
            f"/registry/persistentvolumes/{volume['metadata']['name']}",
        ]
        return Original(
            name=name,
            address=address_of(number),
            uids={kind: obj["metadata"]["uid"] for kind, obj in made.items()},
            derived=derived,
            values={key: await _get(etcd, key) for key in keys},
        )

    def _puts(self, original: Original, number: int, name: str) -> Iterator[dict[str, str]]:
        """Yield the objects of one copy, as etcd's API takes them."""
        uids = {kind: str(uuid.uuid4()) for kind in original.uids}
        derived = self._derive(name, uids["session"])
        others = {
            original.name: name,
            original.address: address_of(number),
            **{uid: uids[kind] for kind, uid in original.uids.items()},
            **dict(zip(original.derived, derived, strict=True)),
        }
        for key, value in original.values.items():
            yield {
                "key": _encode(replaced(key.encode(), others)),
                "value": _encode(replaced(value, others)),
            }

    def _derive(self, name: str, uid: str) -> tuple[str, str, str]:
        """Return the template's hash, the token's ID and the token of a session."""
        template = objects.desired_hash(NAMESPACE, name, uid, self._spec, self._settings)
        token = derive_token(self._key, uid, 0)
        return template, token_id(token), token


def address_of(number: int) -> str:
    """Return a loopback address for each session, all with 15 characters."""
    rest, last = divmod(number, 156)
    second, third = divmod(rest, 156)
    return f"127.{112 + second}.{100 + third}.{100 + last}"


def replaced(text: bytes, others: Mapping[str, str]) -> bytes:
    """Return a text with other values of the same length."""
    for value, other in others.items():
        if len(value) != len(other):
            raise ValueError("a copy must be as long as its original")
        text = text.replace(value.encode(), other.encode())
    return text


async def _get(etcd: aiohttp.ClientSession, key: str) -> bytes:
    found = await _ask(etcd, "range", {"key": _encode(key.encode())})
    [entry] = found["kvs"]
    return base64.b64decode(entry["value"])


async def _ask(etcd: aiohttp.ClientSession, what: str, question: object) -> Any:
    async with etcd.post(f"/v3/kv/{what}", json=question) as response:
        response.raise_for_status()
        return await response.json()


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
