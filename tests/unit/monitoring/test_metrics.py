"""The documents name the metrics that there are, and the board asks for no others."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from support.prometheus import BOARD, alerts, board_queries, panels
from support.testbed import ROOT
from wasession_api.v1alpha1 import Phase

PROGRAMS = {
    "operator": ["wasession_operator.metrics", "wasession_api.kube.client"],
    "gateway": ["wasession_gateway.metrics"],
    "session-pod": ["wasession_pod.metrics"],
}


def metrics(program: str) -> set[str]:
    """Return the names of a program's metrics; of histograms without suffixes."""
    return {
        metric._name + ("_total" if metric._type == "counter" else "")
        for module in PROGRAMS[program]
        for metric in vars(importlib.import_module(module)).values()
        if isinstance(metric, MetricWrapperBase)
    }


ALL = set[str]().union(*map(metrics, PROGRAMS))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_readme_lists_each_metric(program: str) -> None:
    text = (ROOT / program / "README.md").read_text()
    assert metrics(program) - set(re.findall(r"wasession_\w+", text)) == set()


QUERIES = board_queries("5m")


@pytest.mark.parametrize(
    ("name", "query"),
    [*QUERIES, *((alert["alert"], alert["expr"]) for alert in alerts())],
    ids=lambda value: value[:40],
)
def test_a_query_asks_for_metrics_that_there_are(name: str, query: str) -> None:
    asked = set(re.findall(r"\bwasession_\w+", query))
    assert asked, name
    assert {re.sub(r"_(bucket|count)$", "", metric) for metric in asked} - ALL == set()


def test_prometheus_understands_each_query(promtool: Path, tmp_path: Path) -> None:
    """Of the board; the alerts are in test_alerts.py."""
    rules = [
        {"record": f"panel{number}", "expr": query} for number, (_, query) in enumerate(QUERIES)
    ]
    file = tmp_path / "board.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_of_the_board_do_not_overlap() -> None:
    taken = set[tuple[int, int]]()
    for panel in BOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_every_panel_asks_the_data_source_that_the_person_chooses() -> None:
    [variable] = BOARD["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_kube_state_metrics_knows_all_phases() -> None:
    values = yaml.safe_load((ROOT / "docs" / "kube-state-metrics.yaml").read_text())
    [resource] = values["customResourceState"]["config"]["spec"]["resources"]
    [phase] = [metric for metric in resource["metrics"] if metric["name"] == "phase"]
    assert phase["each"]["stateSet"]["list"] == list(Phase)
