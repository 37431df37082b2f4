"""Which sessions have which login, as the API server has it: nothing cached proves anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from wasession_api.kube.client import PVCS, SESSIONS, KubeClient, ResourceExpired, Unavailable
from wasession_api.kube.manifests import Key, Manifest, key_of
from wasession_api.v1alpha1 import BootstrapState, ConditionType, Phase, Reason

from wasession_operator.cluster_cache import METADATA_PAGE, login_of, noted_login, object_key
from wasession_operator.plan.bootstrap import HAS_LOGIN


class LoginCopy(NamedTuple):
    """A session with a login, or about to get it."""

    key: Key
    uid: str
    restored_at: datetime | None
    has_given_way: bool  # it has written that it creates no pod


class LoginSurvey:
    """Lists the sessions of all namespaces. Who asks during a list shares the next one."""

    def __init__(self, kube: KubeClient, namespaces: Sequence[str | None]) -> None:
        self._kube = kube
        self._namespaces = namespaces
        self._present: asyncio.Task[Mapping[str, list[LoginCopy]]] | None = None
        self._next: asyncio.Task[Mapping[str, list[LoginCopy]]] | None = None

    async def copies_of(self, login: str) -> Sequence[LoginCopy]:
        """Return the sessions that have a login, by a list that begins after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._list_after(self._present))
        return (await asyncio.shield(self._next)).get(login, [])

    async def _list_after(
        self, present: asyncio.Task[Mapping[str, list[LoginCopy]]] | None
    ) -> Mapping[str, list[LoginCopy]]:
        if present is not None:
            await asyncio.wait({present})
        self._present, self._next = self._next, None
        try:
            return await self._list()
        except ResourceExpired as error:
            raise Unavailable(f"list of all sessions: {error}") from None

    async def _list(self) -> Mapping[str, list[LoginCopy]]:
        """Return all copies by the ID of their login."""
        copies: dict[str, list[LoginCopy]] = {}
        for namespace in self._namespaces:
            unknown: dict[Key, LoginCopy] = {}  # by the key of the claim, which may note the login
            async for page in self._kube.pages(SESSIONS, namespace):
                for session in page["items"]:
                    login, copy = login_of(session), _copy(session)
                    if login is None:
                        unknown[object_key(copy.key)] = copy
                    else:
                        copies.setdefault(login, []).append(copy)
            if not unknown:
                continue
            async for page in self._kube.pages(
                PVCS, namespace, metadata=True, page_size=METADATA_PAGE
            ):
                for claim in page["items"]:
                    login, key = noted_login(claim), key_of(claim)
                    if login is not None and key in unknown:
                        copies.setdefault(login, []).append(unknown[key])
        return copies


def restored_at(session: Manifest | None) -> datetime | None:
    """Return when the restoration of a session's login began; None if it was linked there."""
    bootstrap = ((session or {}).get("status") or {}).get("bootstrap") or {}
    if bootstrap.get("state") not in HAS_LOGIN:
        return None
    return datetime.fromisoformat(bootstrap["at"])


def _copy(session: Manifest) -> LoginCopy:
    uid = session["metadata"]["uid"]
    return LoginCopy(key_of(session), uid, restored_at(session), _has_given_way(session))


def _has_given_way(session: Manifest) -> bool:
    """Return whether a session has written that it creates no pod, by its spec as it is now.

    It is suspended. Or it was to be restored, and has yielded to one that was later: before it
    creates a pod after all, it writes that it does not yield any more, and looks at all others.
    """
    metadata, status = session["metadata"], session.get("status") or {}
    if status.get("observedGeneration") != metadata.get("generation"):
        return False
    if (session.get("spec") or {}).get("suspend"):
        return bool(status.get("phase") == Phase.SUSPENDED)
    restoring = (status.get("bootstrap") or {}).get("state") == BootstrapState.RESTORING
    return restoring and any(
        condition["type"] == ConditionType.READY and condition["reason"] == Reason.LOGIN_MOVED
        for condition in status.get("conditions") or []
    )
