"""One namespace with nodes, sessions and the operator's replicas, as a test sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import aiohttp
from support.fakes.api import Api, ApiError, Manifest
from support.fakes.history import Change, History, Key, violations
from support.fakes.kubelet import Kubelet, Node
from support.fakes.network import Network
from support.fakes.operators import OperatorProcess, Operators
from support.fakes.proxy import Call, Proxy
from support.fakes.session_pods import SessionPod
from wasession_api.names import ANNOTATION_LOGIN_ID, object_name, token_secret_name
from wasession_api.v1alpha1 import (
    API_VERSION,
    BACKUP_KIND,
    BACKUP_PLURAL,
    CLASS_KIND,
    CLASS_PLURAL,
    KIND,
    PLURAL,
    Override,
)
from wasession_operator.objects import SAFE_TO_EVICT

PVCS = "persistentvolumeclaims"
SETTINGS = {
    "session_image": "session-pod:1",
    "restoration_delay": "0s",
    "update_min_ready": "0s",
    "log_format": "text",
}


class Environment:
    """What all worlds of a test session share."""

    def __init__(
        self,
        api: Api,
        operators_api: Api,
        network: Network,
        history: History,
        kubelet: Kubelet,
        operators: Operators,
    ) -> None:
        self.api = api
        self.operators_api = operators_api  # what the operators' proxies use
        self.network = network
        self.history = history
        self.kubelet = kubelet
        self.operators = operators
        self.numbers = itertools.count(1)
        self.ports = itertools.count(10000)  # of the operators
        self.user: str | None = None  # the operators have this user's rights; None: all rights


class Replica:
    """A pod of the operator: a name, a way to the API server of its own, and a process.

    The process may end, and another one start in the same pod.
    """

    def __init__(self, world: World, environment: Environment, name: str) -> None:
        self.name = name
        self.proxy = Proxy(environment.operators_api, environment.network, environment.user)
        self.latest: OperatorProcess | None = None  # process; it may have ended
        self._world = world
        self._environment = environment
        self._port = next(environment.ports)

    @property
    def process(self) -> OperatorProcess:
        assert self.latest is not None, f"{self.name} was never started"
        return self.latest

    def start(self, **settings: str) -> OperatorProcess:
        """Start the process, with settings on top of the world's."""
        chosen = {"http_port": str(self._port), "pod_name": self.name}
        self.latest = self._environment.operators.start(
            self.proxy.url,
            imported=self._world.imported,
            descriptors=self._world.descriptors,
            variables=self._world.variables,
            **{**self._world.settings, **chosen, **settings},
        )
        return self.latest

    async def kill(self) -> None:
        self.process.kill()
        await self.process.ended()

    async def stop(self) -> None:
        """End the process like a Deployment: SIGTERM, and SIGKILL if it does not end."""
        if self.latest is not None and self.process.running:
            self.process.resume()
            self.process.terminate()
            try:
                await self.process.ended(30)
            except TimeoutError:
                await self.kill()
                raise

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body of one of its HTTP endpoints."""
        url = f"http://127.0.0.1:{self._port}{path}"
        async with self._world.http() as http, http.get(url) as response:
            return response.status, await response.text()


class World:
    """A namespace. ``close`` returns what has happened in it and must never happen.

    The operator's first replica is there from the beginning, and the only one in most tests.
    """

    def __init__(self, environment: Environment) -> None:
        self.namespace = f"world-{next(environment.numbers)}"
        self.class_name = self.namespace  # worlds share an API server, but no class
        self.classes = {self.class_name}
        self.api = environment.api
        self.history = environment.history
        self.kubelet = environment.kubelet
        self.script = self.kubelet.scripts[self.namespace]
        self.nodes: list[Node] = []
        self.settings = {
            **SETTINGS,
            "namespaces": self.namespace,
            # Worlds share an API server, but no Leases.
            "operator_name": f"{self.namespace}/wasession-operator",
        }
        self.imported = True  # whether operators are forks of the zygote
        self.descriptors: int | None = None  # soft limit that operators start with
        self.variables: dict[str, str] = {}  # of operators, beside their settings
        self.deleted: set[Key] = set()  # objects that the test has deleted
        self._environment = environment
        self.replicas: list[Replica] = []
        self._first = self._new_replica()
        self.proxy = self._first.proxy

    async def open(self) -> None:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await self.api.create("namespaces", manifest)
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": self.namespace},
        }
        try:
            await self.api.create("serviceaccounts", account)
        except ApiError as error:
            if error.status != 409:  # the controller was quicker
                raise
        await self.create_class(self.class_name, overrides=list(Override))
        await self.add_node()
        await self.proxy.start()

    async def close(self) -> list[str]:
        for replica in self.replicas:
            await replica.stop()
        for replica in self.replicas:
            await replica.proxy.stop()
        for name in self.classes:
            await self.delete_class(name)
        await self.history.catch_up(self.namespace)
        never = list(violations(self.changes, self.deleted, self.calls))
        never += self.kubelet.violations[self.namespace]
        never += [
            f"the operator read Secrets: {call}"
            for call in self.calls
            if call.resource == "secrets" and call.verb != "PATCH"
        ]
        for node in self.nodes:
            await self.kubelet.remove_node(node)
        return never

    async def add_node(self) -> Node:
        node = await self.kubelet.add_node(
            f"{self.namespace}-node{len(self.nodes) + 1}", self.namespace
        )
        self.nodes.append(node)
        self.kubelet.look_again(self.namespace)
        return node

    # --- the operator -----------------------------------------------------------------------------

    @property
    def operator(self) -> OperatorProcess | None:
        """The process of the first replica."""
        return self._first.latest

    @property
    def calls(self) -> list[Call]:
        """All calls of all replicas, those of each one in order."""
        return [call for replica in self.replicas for call in replica.proxy.calls]

    async def start_operator(self, **settings: str) -> OperatorProcess:
        return self._first.start(**settings)

    async def add_replica(self, **settings: str) -> Replica:
        """Start another replica; return when it watches sessions."""
        replica = await self.prepare_replica()
        replica.start(**settings)
        await replica.proxy.until(
            lambda: any(c.watch and c.resource == PLURAL for c in replica.proxy.calls)
        )
        return replica

    async def prepare_replica(self) -> Replica:
        """Add a replica that is not started yet."""
        replica = self._new_replica()
        await replica.proxy.start()
        return replica

    def _new_replica(self) -> Replica:
        name = f"operator-{len(self.replicas) + 1}"
        self.replicas.append(Replica(self, self._environment, name))
        return self.replicas[-1]

    async def kill_operator(self) -> None:
        await self._first.kill()

    async def restart_operator(self) -> None:
        """Kill the operator and start another; return when that one watches sessions."""
        await self.kill_operator()
        before = len(self.proxy.calls)
        await self.start_operator()
        await self.proxy.until(
            lambda: any(c.watch and c.resource == PLURAL for c in self.proxy.calls[before:])
        )

    async def stop_operator(self) -> None:
        """End the operator like a Deployment: SIGTERM, and SIGKILL if it does not end."""
        await self._first.stop()

    def http(self) -> aiohttp.ClientSession:
        """Return an HTTP client inside the network."""
        return aiohttp.ClientSession(connector=self._environment.network.connector())

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body of one of the operator's HTTP endpoints."""
        return await self._first.get(path)

    # --- what a person does -----------------------------------------------------------------------

    async def create(self, name: str, **spec: Any) -> Manifest:
        """Create a session, of the world's own class unless ``className`` is another, or None."""
        metadata = {"name": name, "namespace": self.namespace}
        spec = {"className": self.class_name, **spec}
        spec = {field: value for field, value in spec.items() if value is not None}
        return await self.api.create(
            PLURAL, {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
        )

    async def back_up(self, name: str, session: str = "sales", **spec: Any) -> Manifest:
        """Create a backup of a session."""
        metadata = {"name": name, "namespace": self.namespace}
        return await self.api.create(
            BACKUP_PLURAL,
            {
                "apiVersion": API_VERSION,
                "kind": BACKUP_KIND,
                "metadata": metadata,
                "spec": {"sessionName": session, **spec},
            },
        )

    async def import_backup(self, name: str, source: World, **spec: Any) -> Manifest:
        """Create an import of another world's backup of the same name."""
        wanted = {"namespace": source.namespace, "name": name}
        return await self.api.create(
            BACKUP_PLURAL,
            {
                "apiVersion": API_VERSION,
                "kind": BACKUP_KIND,
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"importFrom": wanted, **spec},
            },
        )

    async def export_backup(self, name: str, *namespaces: str) -> None:
        """Let these namespaces, and no others, import a backup."""
        spec = {"spec": {"exportTo": list(namespaces)}}
        await self.api.patch(BACKUP_PLURAL, self.namespace, name, spec)

    async def create_class(
        self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any
    ) -> Manifest:
        """Create a class; it goes with the world."""
        self.classes.add(name)
        return await self.api.create(
            CLASS_PLURAL,
            {
                "apiVersion": API_VERSION,
                "kind": CLASS_KIND,
                "metadata": {"name": name, "annotations": annotations or {}},
                "spec": spec,
            },
        )

    async def change_class(self, name: str | None = None, **spec: Any) -> None:
        """Change a class, by default the world's own."""
        await self.api.patch(CLASS_PLURAL, None, name or self.class_name, {"spec": spec})

    async def delete_class(self, name: str) -> None:
        try:
            await self.api.delete(CLASS_PLURAL, None, name)
        except ApiError as error:
            if error.status != 404:
                raise

    async def change(self, name: str, **spec: Any) -> None:
        await self.api.patch(PLURAL, self.namespace, name, {"spec": spec})

    async def annotate(self, name: str, **annotations: str) -> None:
        """Set annotations of the project's group."""
        metadata = {
            "annotations": {
                f"wasession.dev/{key.replace('_', '-')}": value
                for key, value in annotations.items()
            }
        }
        await self.api.patch(PLURAL, self.namespace, name, {"metadata": metadata})

    async def delete(self, name: str) -> None:
        await self.api.delete(PLURAL, self.namespace, name)

    async def take_away(self, plural: str, name: str, **options: Any) -> Manifest:
        """Delete an object of a session, as a person may, and return it as it was."""
        obj = self.object(plural, name)
        assert obj is not None
        key = self.key(plural, name)
        self.deleted.add(key)
        await self.api.delete(*key, **options)
        return obj

    # --- what there is ----------------------------------------------------------------------------

    @property
    def changes(self) -> list[Change]:
        return self.history.of(self.namespace)

    def session(self, name: str) -> Manifest | None:
        return self.history.current.get((PLURAL, self.namespace, name))

    def backup(self, name: str) -> Manifest | None:
        return self.history.current.get((BACKUP_PLURAL, self.namespace, name))

    @property
    def backups(self) -> list[Manifest]:
        return self.history.objects(BACKUP_PLURAL, self.namespace)

    async def until_backup(
        self, name: str, phase: str = "Completed", reason: str | None = None
    ) -> Manifest:
        """Wait until a backup has a phase, and a reason if one is given; return its status."""

        def reached() -> Manifest | None:
            status: Manifest = (self.backup(name) or {}).get("status", {})
            fits = status.get("phase") == phase and reason in (None, status.get("reason"))
            return status if fits else None

        status: Manifest = await self.until(reached, f"backup {name} {phase} {reason or ''}")
        return status

    def key(self, plural: str, name: str) -> Key:
        """Return the key of the pod, claim or Secret of a session."""
        name_of = token_secret_name if plural == "secrets" else object_name
        return plural, self.namespace, name_of(name)

    def object(self, plural: str, name: str) -> Manifest | None:
        """Return the pod, claim or Secret of a session, if it exists."""
        return self.history.current.get(self.key(plural, name))

    def pod(self, name: str) -> Manifest:
        pod = self.object("pods", name)
        assert pod is not None, f"session {name} has no pod"
        return pod

    def program(self, name: str) -> SessionPod:
        return self.kubelet.program(self.pod(name))

    def status(self, name: str) -> Manifest:
        status: Manifest = (self.session(name) or {}).get("status", {})
        return status

    def phase(self, name: str) -> str | None:
        return self.status(name).get("phase")

    def condition(self, name: str, kind: str) -> Manifest:
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == kind), {})

    def created(self, plural: str) -> int:
        """Return how many objects of a kind were ever created."""
        return sum(change.plural == plural and change.type == "ADDED" for change in self.changes)

    async def until(self, condition: Callable[[], Any], what: str, timeout: float = 120) -> Any:
        try:
            return await self.history.until(condition, what, timeout)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self._story()}") from None

    async def until_phase(self, *names: str, phase: str = "Ready") -> None:
        def reached() -> bool:
            return all(self.phase(name) == phase for name in names)

        await self.until(reached, f"{', '.join(names[:5])} {phase}")

    async def until_replaced(self, name: str, pod: Manifest, phase: str = "Ready") -> Manifest:
        """Wait until another pod has replaced this one and the session has the phase; return it."""
        uid = pod["metadata"]["uid"]

        def replaced() -> Manifest | None:
            current, status = self.object("pods", name), self.status(name)
            if current is None or current["metadata"]["uid"] == uid:
                return None
            reported = status.get("podUID") == current["metadata"]["uid"]
            return current if reported and status.get("phase") == phase else None

        replacement: Manifest = await self.until(replaced, f"another pod of {name}, {phase}")
        return replacement

    async def until_noted(self, *names: str) -> None:
        """Wait for the last that is written of a new session: that its login is there.

        Its claim notes the login, and its pod may be evicted from then on.
        """

        def noted(name: str) -> bool:
            claim, pod = self.object(PVCS, name), self.object("pods", name)
            return (
                claim is not None
                and ANNOTATION_LOGIN_ID in claim["metadata"]["annotations"]
                and pod is not None
                and pod["metadata"]["annotations"].get(SAFE_TO_EVICT) == "true"
            )

        await self.until(lambda: all(map(noted, names)), f"notes of the logins of {names}")

    async def until_gone(self, name: str) -> None:
        await self.until(lambda: self.session(name) is None, f"session {name} to be gone")

    async def until_none(self, plural: str, name: str) -> None:
        """Wait until a session's pod, claim or Secret is gone."""
        await self.until(lambda: self.object(plural, name) is None, f"no more {plural} of {name}")

    async def until_reason(self, name: str, kind: str, reason: str) -> Manifest:
        """Wait until a condition has a reason; return the condition."""

        def with_reason() -> Manifest | None:
            condition = self.condition(name, kind)
            return condition if condition.get("reason") == reason else None

        what = f"condition {kind} of {name} with reason {reason}"
        condition: Manifest = await self.until(with_reason, what)
        return condition

    async def until_calls(self, number: int) -> None:
        """Wait until the operator has made this many calls in total."""
        await self.proxy.until(lambda: len(self.proxy.calls) >= number)

    def _story(self) -> str:
        """Return what helps to understand a failure."""
        sessions = self.history.objects(PLURAL, self.namespace)
        lines = [
            f"{s['metadata']['name']}: {s.get('status', {}).get('phase')}" for s in sessions[:10]
        ]
        for session in sessions[:2]:
            lines += [str(c) for c in session.get("status", {}).get("conditions", [])]
        lines += [f"{b['metadata']['name']}: {b.get('status')}" for b in self.backups[:5]]
        lines += [f"{c.version} {c.plural} {c.type} {c.key[2]}" for c in self.changes[-30:]]
        lines += self.kubelet.violations[self.namespace]
        for replica in self.replicas:
            lines += [replica.name, *(str(call) for call in replica.proxy.calls[-15:])]
            if replica.latest is not None:
                lines += replica.process.log.read_text(errors="replace").splitlines()[-40:]
        return "\n".join(lines)
