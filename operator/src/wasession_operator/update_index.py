"""Which sessions are being updated, of all shards: what one of them does concerns its scope."""

from __future__ import annotations

from collections.abc import Callable, Collection

from wasession_api.kube.manifests import Key, Manifest

from wasession_operator.plan.rollout import Scope


class UpdateIndex:
    """Follows the statuses; ``changed`` is called with each scope in which something has changed.

    A replica that acts on one shard learns here of updates in the others.
    """

    def __init__(self) -> None:
        self.changed: Callable[[Scope], None] = lambda _: None
        self._updating: dict[Scope, dict[Key, bool]] = {}  # sessions, and whether that has failed

    def observe(self, key: Key, before: Manifest | None, after: Manifest | None) -> None:
        """Note the status of a session; None for one that does not exist."""
        scope, failed = _update_of(key, before)
        new_scope, new_failed = _update_of(key, after)
        if (scope, failed) == (new_scope, new_failed):
            return
        if scope is not None:
            self._updating[scope].pop(key, None)
            if not self._updating[scope]:
                del self._updating[scope]
        if new_scope is not None:
            self._updating.setdefault(new_scope, {})[key] = new_failed
        for concerned in filter(None, {scope, new_scope}):
            self.changed(concerned)

    def updating(self, scope: Scope) -> list[Key]:
        """Return the sessions of a scope that are being updated."""
        return list(self._updating.get(scope, ()))

    def failed(self, scope: Scope, but: Collection[Key] = ()) -> bool:
        """Return whether one has not recovered from its update, not counting some."""
        sessions = self._updating.get(scope, {})
        return any(failed and key not in but for key, failed in sessions.items())


def _update_of(key: Key, session: Manifest | None) -> tuple[Scope | None, bool]:
    """Return the scope of the update that a session's status shows, and whether it has failed."""
    status = (session or {}).get("status") or {}
    update = status.get("update")
    if not update or update.get("done"):
        return None, False
    if update.get("own"):
        owner = ((session or {}).get("spec") or {}).get("owner") or ""
        return ("owner", key[0], owner), bool(update.get("failed"))
    return ("class", (status.get("class") or {}).get("name") or ""), bool(update.get("failed"))
