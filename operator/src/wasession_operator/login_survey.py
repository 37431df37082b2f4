"""Which sessions have which login, as the API server has it: nothing cached proves anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from wasession_api.kube.client import (
    PVCS,
    SESSIONS,
    KubeClient,
    Rejected,
    ResourceExpired,
    Unavailable,
)
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


class Logins(NamedTuple):
    """All copies by the ID of their login, and why sessions of some namespaces are not among them.

    The operator may list the sessions of namespaces that it does not serve: they may still run.
    """

    copies: Mapping[str, list[LoginCopy]]
    gap: str | None = None


class LoginSurvey:
    """Lists the sessions of all namespaces. Who asks during a list shares the next one."""

    def __init__(
        self,
        kube: KubeClient,
        namespaces: Sequence[str | None],
        rejection: Callable[[str | None], str | None],
    ) -> None:
        """``namespaces`` are those that the operator serves; None stands for all of them.

        ``rejection`` returns why one of them cannot be served for the time being, if so.
        """
        self._kube = kube
        self._namespaces = namespaces
        self._rejection = rejection
        self._present: asyncio.Task[Logins] | None = None
        self._next: asyncio.Task[Logins] | None = None

    async def copies_of(self, login: str) -> tuple[Sequence[LoginCopy], str | None]:
        """Return the sessions that have a login, by a list that begins after this call.

        The second value is why there may be more of them, if so.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._list_after(self._present))
        logins = await asyncio.shield(self._next)
        return logins.copies.get(login, []), logins.gap

    async def _list_after(self, present: asyncio.Task[Logins] | None) -> Logins:
        if present is not None:
            await asyncio.wait({present})
        self._present, self._next = self._next, None
        try:
            return await self._list()
        except ResourceExpired as error:
            raise Unavailable(f"list of all sessions: {error}") from None

    async def _list(self) -> Logins:
        sessions, gap = await self._sessions()
        copies: dict[str, list[LoginCopy]] = {}
        unknown: dict[Key, LoginCopy] = {}  # by the key of the claim, which may note the login
        for login, copy in sessions:
            if login is None:
                unknown[object_key(copy.key)] = copy
            else:
                copies.setdefault(login, []).append(copy)
        for namespace in self._namespaces:
            if not any(namespace in (None, key[0]) for key in unknown):
                continue
            try:
                noted = await self._notes_of(namespace)
            except (Rejected, Unavailable) as error:
                # An API server that fails for a moment is asked again. One that goes on failing
                # for a namespace, be it for an object that it cannot decode, holds up that alone.
                is_lasting = isinstance(error, Rejected) or self._rejection(namespace) is not None
                if namespace is None or not is_lasting:
                    raise
                gap = gap or str(error)
                continue
            for key in noted.keys() & unknown.keys():
                copies.setdefault(noted[key], []).append(unknown[key])
        return Logins(copies, gap)

    async def _sessions(self) -> tuple[list[tuple[str | None, LoginCopy]], str | None]:
        """Return all sessions with their logins, and why there may be more of them, if so."""
        try:
            return await self._sessions_of(None), None
        except Rejected as error:
            if None in self._namespaces:
                raise
            gap = str(error)
        listed = []
        for namespace in self._namespaces:
            with contextlib.suppress(Rejected):  # that is a gap too
                listed += await self._sessions_of(namespace)
        return listed, gap

    async def _sessions_of(self, namespace: str | None) -> list[tuple[str | None, LoginCopy]]:
        listed = []
        async for page in self._kube.pages(SESSIONS, namespace):
            listed += [(login_of(session), _copy(session)) for session in page["items"]]
        return listed

    async def _notes_of(self, namespace: str | None) -> dict[Key, str]:
        """Return the logins that claims note, by the key of the claim."""
        noted = {}
        async for page in self._kube.pages(PVCS, namespace, metadata=True, page_size=METADATA_PAGE):
            for claim in page["items"]:
                if (login := noted_login(claim)) is not None:
                    noted[key_of(claim)] = login
        return noted


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
