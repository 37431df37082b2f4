"""The chart's alerts fire and clear (promtool runs alerts.test.yaml), and each has a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.prometheus import RULES, alerts
from support.testbed import ROOT

TESTS = Path(__file__).with_name("alerts.test.yaml")
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["**What it means.**", "**Impact.**", "## Find the cause", "## Mend it", "**It clears**"]


NAMES = [alert["alert"] for alert in alerts()]


def test_each_alert_fires_and_clears(promtool: Path, tmp_path: Path) -> None:
    """Of the annotations only the summary is compared: the others are plain text."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["annotations"] = {"summary": rule["annotations"]["summary"]}
    (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
    tests = tmp_path / TESTS.name
    tests.write_text(TESTS.read_text())
    done = subprocess.run([promtool, "test", "rules", tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_tested_both_ways(name: str) -> None:
    tests = yaml.safe_load(TESTS.read_text())["tests"]
    [steps] = [test["alert_rule_test"] for test in tests if test["name"] == name]
    assert [bool(step["exp_alerts"]) for step in steps] == [True, False]
    assert {step["alertname"] for step in steps} == {name}


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_each_alert_leads_to_its_runbook(alert: dict[str, Any]) -> None:
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["runbook_url"] == f"RUNBOOKS/{alert['alert']}.md"
    page = (RUNBOOKS / f"{alert['alert']}.md").read_text()
    places = [page.index(section) for section in [f"# {alert['alert']}", *SECTIONS]]
    assert places == sorted(places)


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert sorted(page.stem for page in RUNBOOKS.glob("Wasession*.md")) == sorted(NAMES)


def test_the_page_on_monitoring_lists_all_alerts() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\(runbooks/\1\.md\)", (ROOT / "docs/monitoring.md").read_text(), re.M
    )
    assert rows == NAMES


def test_a_broken_rule_is_found(promtool: Path, tmp_path: Path) -> None:
    """The check itself: promtool rejects what Prometheus could not load."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(RULES.read_text().replace("max by (class)", "max by class", 1))
    assert subprocess.run([promtool, "check", "rules", RULES], check=False).returncode == 0
    assert subprocess.run([promtool, "check", "rules", broken], check=False).returncode != 0
