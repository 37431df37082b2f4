"""The real operator against a real API server, with fast fakes for the rest."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import yaml
from support.cluster import binaries
from support.fakes.api import Api, Manifest
from support.fakes.api_server import OPERATORS, ApiServer
from support.fakes.history import History
from support.fakes.kubelet import Kubelet
from support.fakes.network import Network
from support.fakes.operators import Operators
from support.fakes.session_pods import SessionPods
from support.fakes.world import Environment, World
from support.testbed import CHART

SYSTEM = "wasession-system"  # the namespace of all releases


@pytest.fixture(scope="session")
async def environment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Environment]:
    directory = tmp_path_factory.mktemp("operator")
    network = Network()
    server = ApiServer(directory, network)
    operators = Operators(network, directory)
    try:
        await server.start()
        async with server.client() as api, server.client(OPERATORS) as operators_api:
            history, pods = History(api), SessionPods(network)
            kubelet = Kubelet(api, history, pods)
            await history.start()
            await pods.start()
            await kubelet.start()
            environment = Environment(api, operators_api, network, history, kubelet, operators)
            await api.create("namespaces", {"metadata": {"name": SYSTEM}})
            # With a store of backups and snapshots the operator has all rights that it ever has.
            store = ("--set", "backups.store=s3://backups,backups.snapshots.enabled=true")
            environment.user = await grant(api, render_roles(*store))
            yield environment
            await kubelet.stop()
            await pods.stop()
            await history.stop()
    finally:
        operators.stop()
        server.stop()
        network.close()


async def eventually(condition: Callable[[], Awaitable[bool]], patience: float = 30) -> None:
    """Wait until a condition holds of what has no event, such as policies and roles."""
    async with asyncio.timeout(patience):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def render(template: str | None, *options: str, release: str = "wasession") -> list[Manifest]:
    """Return the manifests of one of the chart's templates, or of all."""
    command = [binaries.tool("helm"), "template", release, str(CHART), "--namespace", SYSTEM]
    command += ["--kube-version", binaries.kubernetes_version(), *options]
    if template is not None:
        command += ["--show-only", template]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def render_roles(*options: str, release: str = "wasession") -> list[Manifest]:
    """Return the chart's roles: the operators here have the permissions of an installed one."""
    return render("templates/rbac.yaml", *options, release=release)


async def grant(api: Api, roles: list[Manifest]) -> str:
    """Create the roles, and return the user that they are bound to.

    Each world has the Leases of an installation of its own: the rights to them hold everywhere.
    """
    for manifest in roles:
        if manifest["metadata"]["name"].endswith("-leases"):
            manifest = _everywhere(manifest)
        await api.create(f"{manifest['kind'].lower()}s", manifest)
    [subject] = next(m["subjects"] for m in roles if m["kind"] == "ClusterRoleBinding")
    return f"system:serviceaccount:{subject['namespace']}:{subject['name']}"


def _everywhere(role: Manifest) -> Manifest:
    """Return the ClusterRole or ClusterRoleBinding with the rights of a Role or RoleBinding."""
    metadata = {"name": role["metadata"]["name"]}
    changed = {**role, "kind": f"Cluster{role['kind']}", "metadata": metadata}
    if "roleRef" in role:
        changed["roleRef"] = {**role["roleRef"], "kind": "ClusterRole"}
    return changed


@pytest.fixture
async def world(environment: Environment) -> AsyncIterator[World]:
    world = World(environment)
    await world.open()
    yield world
    assert await world.close() == []
