"""A store of archives in memory, with which nothing is slow and everything can be away."""

from __future__ import annotations

from dataclasses import dataclass, field

from wasession_api.session_pod.backup import ArchiveManifest
from wasession_operator.backups.backup import Archive
from wasession_operator.backups.store import StoreError


@dataclass
class FakeStore:
    """``archives`` has the size of each one; while ``down``, every method raises."""

    archives: dict[str, int] = field(default_factory=dict)
    manifests: dict[str, ArchiveManifest | None] = field(default_factory=dict)  # None: invalid
    down: bool = False
    requests: list[str] = field(default_factory=list)  # such as "delete team-a/sales/1.tar.age"

    async def sign_put(self, key: str) -> str:
        self._note("sign_put", key)
        return f"http://store.invalid/{key}?signature=put"

    async def sign_get(self, key: str) -> str:
        self._note("sign_get", key)
        return f"http://store.invalid/{key}?signature=get"

    async def look(self, key: str) -> Archive:
        self._note("look", key)
        return Archive(self.archives.get(key), self.manifests.get(key), key in self.manifests)

    async def write_manifest(self, key: str, manifest: ArchiveManifest) -> None:
        self._note("write_manifest", key)
        self.manifests[key] = manifest

    async def copy(self, source: str, target: str) -> bool:
        self._note("copy", source, target)
        if source not in self.archives:
            return False
        self.archives[target] = self.archives[source]
        return True

    async def delete(self, key: str) -> None:
        self._note("delete", key)
        self.manifests.pop(key, None)
        self.archives.pop(key, None)

    async def namespaces(self) -> list[str]:
        self._note("namespaces")
        return sorted({key.split("/")[0] for key in [*self.archives, *self.manifests]})

    async def keys(self, namespace: str) -> list[str]:
        self._note("keys", namespace)
        return sorted(key for key in self.manifests if key.startswith(f"{namespace}/"))

    def _note(self, *request: str) -> None:
        self.requests.append(" ".join(request))
        if self.down:
            raise StoreError("The store did not answer in time.")
