"""What can be said about the alerts without promtool; tests/system/test_prometheus.py lets promtool speak."""

import re
from pathlib import Path

import pytest
import yaml

from monitoring.metrics import CATALOGUE

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
CASES = yaml.safe_load((ROOT / "tests/system/alerts_test.yml").read_text())["tests"]

every_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def exported_names() -> set[str]:
    names = {metric.name for metric in CATALOGUE}
    histograms = {metric.name for metric in CATALOGUE if metric.kind == "histogram"}
    return names | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


@every_alert
def test_every_metric_that_an_alert_names_is_exported(rule):
    named = set(re.findall(r"codelupe_\w+", rule["expr"]))
    assert named or rule["expr"].startswith("up{")
    assert named <= exported_names()


@every_alert
def test_an_alert_says_how_urgent_it_is_and_leads_to_its_line_in_the_runbook(rule):
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    path, anchor = rule["annotations"]["runbook_url"].split("#")
    assert anchor == rule["alert"].lower()
    assert f"## {rule['alert']}\n" in (ROOT / path).read_text()


@every_alert
def test_an_alert_is_tested_both_firing_and_silent(rule):
    outcomes = {
        bool(case.get("exp_alerts"))
        for test in CASES
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    }
    assert outcomes == {True, False}


def test_the_runbook_has_no_line_for_an_alert_that_does_not_exist():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]


def test_prometheus_scrapes_the_default_ports_and_reads_the_alerts():
    config = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"codelupe-daemon": ["127.0.0.1:8090"], "codelupe-ingest": ["127.0.0.1:8091"]}
    assert config["rule_files"] == ["alerts.yml"]
