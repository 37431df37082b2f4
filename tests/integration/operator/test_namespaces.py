"""Watched namespaces come and go; what happens in one is no matter for the others."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator

import pytest
from integration.operator.conftest import grant, render_roles
from support.fakes.api import Api, ApiError
from support.fakes.world import Environment, World


class Pair:
    """Two namespaces, ``home`` and ``away``, with one operator, which runs in ``home``."""

    def __init__(self, environment: Environment) -> None:
        self.environment = copy.copy(environment)
        self.home, self.away = World(self.environment), World(self.environment)
        namespaces = [self.home.namespace, self.away.namespace]
        self.home.settings["namespaces"] = ",".join(namespaces)
        self.release = f"pair-{self.home.namespace}"
        self.roles = render_roles(
            "--set", f"watchNamespaces={{{','.join(namespaces)}}}", release=self.release
        )

    async def open(self) -> None:
        for world in (self.home, self.away):
            await world.open()
        user = await grant(self.environment.api, self.roles)
        self.home.proxy.impersonate(user)
        await self.home.start_operator()
        for world in (self.home, self.away):
            await world.create("sales")
            await world.until_phase("sales")
            world.script.scans = False

    async def delete_away(self) -> None:
        await self.environment.api.delete("namespaces", None, self.away.namespace)

    async def until_away_is_gone(self) -> None:
        name = self.away.namespace
        try:
            await until_deleted(self.environment.api, "namespaces", None, name)
        except TimeoutError:
            namespace = await self.environment.api.get("namespaces", None, name)
            assert self.home.operator is not None
            log = self.home.operator.log.read_text()[-4000:]
            raise AssertionError(f"{json.dumps(namespace['status'], indent=1)}\n{log}") from None

    async def until_role_is_gone(self) -> None:
        [binding] = [
            manifest["metadata"]["name"]
            for manifest in self.roles
            if manifest["kind"] == "RoleBinding"
            and manifest["metadata"]["namespace"] == self.away.namespace
        ]
        await until_deleted(self.environment.api, "rolebindings", self.away.namespace, binding)

    async def replaces_pods_at_home(self) -> None:
        pod = self.home.pod("sales")
        await self.home.take_away("pods", "sales")
        await self.home.until_replaced("sales", pod)


async def until_deleted(api: Api, plural: str, namespace: str | None, name: str) -> None:
    listed = await api.list(plural, namespace)
    if name not in {item["metadata"]["name"] for item in listed["items"]}:
        return
    version = listed["metadata"]["resourceVersion"]
    async with asyncio.timeout(90):
        async for event in api.watch(plural, version, namespace):
            if event["type"] == "DELETED" and event["object"]["metadata"]["name"] == name:
                return


async def exists(api: Api, plural: str, namespace: str | None, name: str) -> bool:
    try:
        await api.get(plural, namespace, name)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


@pytest.fixture
async def pair(environment: Environment) -> AsyncIterator[Pair]:
    pair = Pair(environment)
    await pair.open()
    yield pair
    assert await pair.home.close() == []
    await pair.away.close()


async def test_a_deleted_namespace_goes_and_stops_nothing(pair: Pair) -> None:
    await pair.delete_away()
    await pair.until_away_is_gone()
    assert pair.away.session("sales") is None
    await pair.replaces_pods_at_home()
    await pair.home.kill_operator()
    await pair.home.start_operator()
    await pair.replaces_pods_at_home()
    status, body = await pair.home.get("/readyz")
    assert status == 200
    assert pair.away.namespace in json.loads(body)["unserved"]
    _, metrics = await pair.home.get("/metrics")
    assert f'wasession_namespace_served{{namespace="{pair.away.namespace}"}} 0.0' in metrics
    assert f'wasession_namespace_served{{namespace="{pair.home.namespace}"}} 1.0' in metrics


async def test_a_namespace_that_is_deleted_while_no_operator_runs_goes(pair: Pair) -> None:
    """Its role goes before its sessions do."""
    await pair.home.kill_operator()
    await pair.delete_away()
    await pair.until_role_is_gone()
    assert await exists(pair.environment.api, "namespaces", None, pair.away.namespace)
    await pair.home.start_operator()
    await pair.until_away_is_gone()
    await pair.replaces_pods_at_home()


async def test_a_namespace_that_comes_back_is_served_again(pair: Pair) -> None:
    await pair.delete_away()
    await pair.until_away_is_gone()
    pair.away.script.scans = True
    manifest = {"metadata": {"name": pair.away.namespace}}
    await pair.environment.api.create("namespaces", manifest)
    for role in pair.roles:
        if role["metadata"].get("namespace") == pair.away.namespace:
            await pair.environment.api.create(f"{role['kind'].lower()}s", role)
    for name in ("sales", "support"):  # one of them by the name of a session that went
        await pair.away.create(name)
    await pair.away.until_phase("sales", "support")
    await pair.replaces_pods_at_home()


async def test_a_namespace_whose_role_is_missing_stops_nothing(pair: Pair) -> None:
    """Nothing is deleted by mistake there either: the session is just not served."""
    for role in pair.roles:
        if role["metadata"].get("namespace") == pair.away.namespace:
            await pair.environment.api.delete(
                f"{role['kind'].lower()}s", pair.away.namespace, role["metadata"]["name"]
            )
    await pair.home.kill_operator()
    pod = pair.away.pod("sales")
    await pair.away.delete("sales")
    await pair.home.start_operator()
    await pair.replaces_pods_at_home()
    assert pair.away.session("sales") is not None
    assert pair.away.pod("sales") == pod
    for role in pair.roles:
        if role["metadata"].get("namespace") == pair.away.namespace:
            await pair.environment.api.create(f"{role['kind'].lower()}s", role)
    await pair.away.until_gone("sales")
