"""The shards that this replica holds, with a controller for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import aiohttp
from wasession_api.kube.client import KubeClient
from wasession_api.kube.informer import Informer
from wasession_api.kube.manifests import Key, Manifest, key_of
from wasession_api.v1alpha1 import RolloutPhase

from wasession_operator import startup
from wasession_operator.backups.store import Store
from wasession_operator.cluster_cache import ClusterCache
from wasession_operator.controller import Controller
from wasession_operator.master_key import MasterKey
from wasession_operator.plan.rollout import Scope
from wasession_operator.settings import Settings
from wasession_operator.sharding.lease import Installation, shard_of, shard_of_name
from wasession_operator.sharding.leases import HeldLease, Leases
from wasession_operator.sharding.update_grants import UpdateNotes, fit_requests, grant, parse_notes


class Admission(NamedTuple):
    """The sessions of a class that may be updated to a revision."""

    revision: str
    sessions: frozenset[Key]


class Shards:
    """Has a controller for each shard that is held, and passes it the events of its sessions.

    The cache has the sessions of all shards. ``session_changed`` is called with each session of a
    held shard about which something has changed, be it only what its pod reports, and
    ``shard_started`` with the controller of a shard that has been acquired.
    """

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        http: aiohttp.ClientSession,
        master_key: MasterKey,
        store: Store | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.session_changed: Callable[[Key], None] = lambda _: None
        self.shard_started: Callable[[Controller], None] = lambda _: None
        self.acquired = asyncio.Event()  # set when a shard has been acquired
        peers = settings.network_policy_peers if settings.network_policy_enabled else None
        self.cache = ClusterCache(
            kube,
            settings.namespaces,
            self,
            shards=settings.shards,
            watch_nodes=settings.watch_nodes,
            operator=settings.operator_name,
            network_policy_peers=peers,
        )
        namespace, _, name = settings.operator_name.partition("/")
        self.leases = Leases(
            kube.unqueued(),
            Installation(namespace, name, tuple(settings.namespaces), settings.shards),
            settings.pod_name,
            settings.pod_uid,
            settings.lease_duration.total_seconds(),
        )
        self.cache.updates.changed = self._on_update
        if settings.shards > 1:
            self.leases.updates_changed = self._on_notes
        self._kube = kube
        self._http = http
        self._master_key = master_key
        self._controllers: dict[int, Controller] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._notes: dict[int, tuple[str, UpdateNotes]] = {}  # by shard: the last ones read
        # By class that is led here: a revision, and the sessions that may be updated to it.
        self._admitted: dict[str, Admission] = {}
        self._reached: frozenset[tuple[str, str, Key]] = (
            frozenset()
        )  # as known last, of all classes
        self._group = asyncio.TaskGroup()
        self._started = time.monotonic()

    async def run(self) -> None:
        """Run until ``leases.stop`` is called and all shards have been given away."""
        async with self._group as group:
            watching = [
                group.create_task(self.cache.run()),
                group.create_task(self.leases.informer.run()),
                group.create_task(startup.list_sessions(self.cache)),
            ]
            await self.cache.wait_for_sync()
            await self.leases.run(self)
            for task in watching:
                task.cancel()

    @property
    def held(self) -> list[int]:
        """Return the shards that this replica acts on."""
        return sorted(self._controllers)

    @property
    def controllers(self) -> list[Controller]:
        return list(self._controllers.values())

    @property
    def informers(self) -> list[Informer]:
        return [*self.cache.informers, self.leases.informer]

    def leader_client(self, name: str) -> KubeClient | None:
        """Return a client for what one replica decides alone, if that is this one.

        ``name`` is what it concerns, such as a class or a namespace.
        """
        controller = self._controllers.get(shard_of_name(name, self.settings.shards))
        return None if controller is None else controller.kube

    def holds(self, key: Key) -> bool:
        """Return whether this replica acts on a session, be it one that does not exist."""
        return self.controller_of(key) is not None

    def controller_of(self, key: Key) -> Controller | None:
        """Return the controller of a session, be it one that does not exist; None elsewhere."""
        return self._controllers.get(shard_of(key, self.settings.shards))

    def enqueue_all(self) -> None:
        """Queue every session that this replica acts on."""
        for controller in self.controllers:
            controller.enqueue_all()

    def enqueue_failed(self, namespace: str | None) -> None:
        """Queue what could not be reconciled of a namespace; None is every one."""
        for controller in self.controllers:
            controller.enqueue_failed(namespace)

    # --- Leases -----------------------------------------------------------------------------------

    def start_shard(self, index: int, lease: HeldLease) -> None:
        """Begin to act on a shard."""
        controller = self._controllers[index] = Controller(
            self.settings,
            self._kube.fenced(lease),
            self._http,
            self.cache,
            self._master_key,
            index,
            self if self.settings.shards > 1 else None,
            self.store,
            self.is_admitted,
        )
        controller.changed = self._on_session_change
        for key in self._keys(index):
            controller.on_upsert(None, self.cache.sessions[key])
        self._running[index] = self._group.create_task(self._run(controller))
        self.acquired.set()
        self.shard_started(controller)

    async def finish_shard(self, index: int, timeout: float) -> bool:
        """End what is in progress on a shard within a time in seconds, and begin nothing.

        Return whether the API server has answered every write.
        """
        is_done = await self._controllers[index].finish(timeout)
        await self.stop_shard(index)
        return is_done

    async def stop_shard(self, index: int) -> None:
        """Stop to act on a shard at once."""
        del self._controllers[index]
        for name in [*self._admitted]:
            if shard_of_name(name, self.settings.shards) == index:
                del self._admitted[name]
        running = self._running.pop(index)
        running.cancel()
        await asyncio.wait((running,))

    async def _run(self, controller: Controller) -> None:
        delay = self.settings.restoration_delay.total_seconds() + self._started - time.monotonic()
        async with asyncio.TaskGroup() as group:
            restoring = group.create_task(
                startup.restore(controller, self.cache.sessions, max(delay, 0.0))
            )
            await controller.run()
            restoring.cancel()

    def _keys(self, index: int) -> Iterator[Key]:
        for key in list(self.cache.sessions):
            if shard_of(key, self.settings.shards) == index:
                yield key

    # --- updates across shards --------------------------------------------------------------------

    def is_granted(self, scope: Scope, request: str) -> bool:
        """Return whether the shard that leads the scope has granted a request."""
        name = "/".join(scope)
        lead = shard_of_name(name, self.settings.shards)
        return request in self._notes_of(lead).grants.get(name, ())

    def requests_changed(self) -> None:
        self.leases.write_updates()

    def desired_updates(self, index: int) -> str:
        """Return what the Lease of a shard should say: its requests, its grants as a leader."""
        shards = self.settings.shards
        if shards == 1:
            return ""
        said = {number: self._notes_of(number) for number in range(shards)}
        requests = {number: notes.requests for number, notes in said.items()}
        for number, controller in self._controllers.items():
            requests[number] = fit_requests(_readable(controller.updates.requests))
        led: dict[str, dict[str, str]] = {}
        for by_scope in requests.values():
            for scope, of_shard in by_scope.items():
                if shard_of_name(scope, shards) == index:
                    led.setdefault(scope, {}).update(of_shard)
        granted = said[index].grants
        # What has been granted is noted first: there may not be room for all.
        grants = {
            scope: self._grant(scope, led[scope], granted.get(scope, ()))
            for scope in sorted(led, key=lambda scope: scope not in granted)
        }
        admitted = {
            name: (revision, *map("/".join, sorted(sessions)))
            for name, (revision, sessions) in self._admissions(index).items()
            if sessions
        }
        return UpdateNotes(requests[index], grants, admitted).dump()

    # --- rollouts of classes ----------------------------------------------------------------------

    def admission(self, name: str) -> Admission:
        """Return which sessions of a class may be updated to which revision."""
        if (own := self._admitted.get(name)) is not None:
            return own
        lead = shard_of_name(name, self.settings.shards)
        return _parse_admission(self._notes_of(lead).admitted.get(name, ()))

    def is_admitted(self, name: str, revision: str, key: Key) -> bool:
        """Return whether the rollout of a class has reached a session."""
        rollout, admission = self.cache.classes.rollout(name), self.admission(name)
        if rollout is None or rollout.phase in (RolloutPhase.HALTED, RolloutPhase.PAUSED):
            return False
        return admission.revision == revision and key in admission.sessions

    def admit(self, name: str, admission: Admission) -> None:
        """Let these sessions be updated, of a class that this replica leads, and no others."""
        if self.leader_client(name) is None:
            return  # the shard was given away meanwhile: what its next holder says counts
        if self.admission(name) == admission and name in self._admitted:
            return
        self._admitted[name] = admission
        self._enqueue_admitted()
        if self.settings.shards > 1:
            self.leases.write_updates()

    def _admissions(self, lead: int) -> dict[str, Admission]:
        """Return what a shard says of the classes that it leads."""
        noted = self._notes_of(lead).admitted
        led = {
            name: admission
            for name, admission in self._admitted.items()
            if shard_of_name(name, self.settings.shards) == lead
        }
        return {name: _parse_admission(entry) for name, entry in noted.items()} | led

    def _enqueue_admitted(self) -> None:
        """Enqueue the sessions that a rollout has just reached."""
        before = self._reached
        self._reached = frozenset(
            (name, admission.revision, key)
            for lead in range(self.settings.shards)
            for name, admission in self._admissions(lead).items()
            for key in admission.sessions
        )
        for _, _, key in self._reached - before:
            self.enqueue(key)

    def _notes_of(self, index: int) -> UpdateNotes:
        """Return what the Lease of a shard says; it is asked for more often than it changes."""
        annotation = self.leases.updates_of(index)
        read = self._notes.get(index)
        if read is None or read[0] != annotation:
            read = self._notes[index] = annotation, parse_notes(annotation)
        return read[1]

    def _grant(
        self, scope: str, requests: Mapping[str, str], granted: Sequence[str]
    ) -> tuple[str, ...]:
        index, parts = self.cache.updates, tuple(scope.split("/", 2))
        updating = {"/".join(key) for key in index.updating(parts)}
        limit = self.settings.max_concurrent_updates
        return grant(limit, requests, granted, updating, halted=index.failed(parts))

    def _on_update(self, scope: Scope) -> None:
        for controller in self.controllers:
            controller.updates.scope_changed(scope)
        if self.leader_client("/".join(scope)) is not None:
            self.leases.write_updates()

    def _on_notes(self) -> None:
        """Take in what Leases say: pass on what they grant, and grant their requests."""
        for controller in self.controllers:
            controller.updates.grants_changed()
        self._enqueue_admitted()
        self.leases.write_updates()

    # --- events of the cache ----------------------------------------------------------------------

    def enqueue(self, key: Key) -> None:
        if (controller := self.controller_of(key)) is not None:
            controller.enqueue(key)

    def on_upsert(self, before: Manifest | None, after: Manifest) -> None:
        if (controller := self.controller_of(key_of(after))) is not None:
            controller.on_upsert(before, after)

    def on_delete(self, key: Key, uid: str) -> None:
        if (controller := self.controller_of(key)) is not None:
            controller.on_delete(key, uid)

    def on_sync(self, namespace: str | None) -> None:
        for controller in self.controllers:
            controller.on_sync(namespace)

    def on_start_node(self, name: str, zone: str | None) -> None:
        for controller in self.controllers:
            controller.on_start_node(name, zone)

    def _on_session_change(self, key: Key) -> None:
        self.session_changed(key)


def _parse_admission(entry: Sequence[str]) -> Admission:
    revision, *sessions = entry or ("",)
    keys = [session.partition("/") for session in sessions]
    return Admission(revision, frozenset((namespace, name) for namespace, _, name in keys))


def _readable(requests: Mapping[Scope, Mapping[Key, str]]) -> Iterator[tuple[str, str, str]]:
    for scope, sessions in requests.items():
        for key, request in sessions.items():
            yield "/".join(scope), "/".join(key), request
