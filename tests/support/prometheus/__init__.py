"""Prometheus and promtool, built from the Go module beside this file, without service discovery."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from support.cluster import binaries
from support.loopback import unused_port
from support.processes import ENDS_WITH_PARENT
from support.testbed import CHART

MODULE = Path(__file__).with_name("go")
UPSTREAM = "github.com/prometheus/prometheus/cmd"
PATIENCE = 60.0  # seconds
RULES = CHART / "files" / "alerts.yaml"
BOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())


def program(name: str) -> Path:
    """Return the path of ``prometheus`` or ``promtool``; the first build takes two minutes."""
    return binaries.of_module(MODULE, name, f"{UPSTREAM}/{name}", tags="remove_all_sd")


def alerts() -> list[dict[str, Any]]:
    """Return the chart's alerts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the chart's board, without the rows between them."""
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def board_queries(interval: str) -> list[tuple[str, str]]:
    """Return the titles of panels and what they ask, with the variable that Grafana replaces."""
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", interval))
        for panel in panels()
        for target in panel["targets"]
    ]


class Prometheus:
    """A server that scrapes targets of this machine each second, as a ServiceMonitor would."""

    def __init__(self, directory: Path, targets: Sequence[str], rules: Path) -> None:
        """``targets`` are addresses with ports; ``rules`` is a file of rules to evaluate."""
        self._directory, self._targets, self._rules = directory, targets, rules
        self._port = unused_port()
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Prometheus:
        self._spawn()
        return self

    def _spawn(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        job = {
            "job_name": "wasession",
            "honor_labels": True,
            "static_configs": [{"targets": list(self._targets)}],
        }
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self._rules)],
            "scrape_configs": [job],
        }
        path = self._directory / "prometheus.yaml"
        path.write_text(json.dumps(settings))
        with (self._directory / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *ENDS_WITH_PARENT,
                    str(program("prometheus")),
                    f"--config.file={path}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query; raises ``RuntimeError`` with what is wrong."""
        url = f"http://127.0.0.1:{self._port}/api/v1/query"
        async with (
            aiohttp.ClientSession() as http,
            http.get(url, params={"query": expression}) as response,
        ):
            answer = await response.json()
        if answer["status"] != "success":
            raise RuntimeError(f"{expression}: {answer['error']}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def until(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of a query as soon as there is one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):  # it starts
                    if found := await self.query(expression):
                        return found
                await asyncio.sleep(0.2)
