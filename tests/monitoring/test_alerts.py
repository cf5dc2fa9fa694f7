"""What can be said about the alerts without promtool; tests/system/test_prometheus.py lets promtool speak."""

import re
from pathlib import Path

import pytest
import yaml

from monitoring.metrics import CATALOGUE

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
CASE_FILES = [ROOT / "tests/system/alerts_test.yml", ROOT / "tests/system/alerts_day_test.yml"]
CASES = [test for file in CASE_FILES for test in yaml.safe_load(file.read_text())["tests"]]

every_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def exported_names() -> set[str]:
    names = {metric.name for metric in CATALOGUE}
    histograms = {metric.name for metric in CATALOGUE if metric.kind == "histogram"}
    return names | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


@every_alert
def test_every_metric_that_an_alert_names_is_exported(rule):
    named = set(re.findall(r"codelupe_\w+", rule["expr"]))
    assert named or "up{" in rule["expr"]
    assert named <= exported_names()


@every_alert
def test_an_alert_says_how_urgent_it_is_and_leads_to_its_line_in_the_runbook(rule):
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    path, anchor = rule["annotations"]["runbook_url"].split("#")
    assert anchor == rule["alert"].lower()
    assert f"## {rule['alert']}\n" in (ROOT / path).read_text()


@every_alert
def test_an_alert_is_fired_for_real_by_the_drill(rule):
    drill = (ROOT / "tests/drill/test_drill.py").read_text()
    waited_for = re.findall(r"wait_for_call\((.*)\)", drill)
    assert f'"{rule["alert"]}"' in ", ".join(waited_for).split(", ")


@every_alert
def test_an_alert_is_tested_both_firing_and_silent(rule):
    outcomes = {
        bool(case.get("exp_alerts"))
        for test in CASES
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == rule["alert"]
    }
    assert outcomes == {True, False}


def test_the_runbook_has_no_line_for_an_alert_that_does_not_exist():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]


def test_prometheus_scrapes_the_default_ports_and_reads_the_alerts():
    config = yaml.safe_load((ROOT / "deploy/prometheus/one-machine.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"codelupe-daemon": ["127.0.0.1:8090"], "codelupe-ingest": ["127.0.0.1:8091"]}
    assert config["rule_files"] == ["alerts.yml"]


def test_an_alert_that_silences_others_and_those_that_it_silences_exist():
    inhibitions = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())["inhibit_rules"]
    matchers = [text for rule in inhibitions for text in (*rule["source_matchers"], *rule["target_matchers"])]
    named = {name for text in matchers for name in re.search(r'^alertname=~?"(.+)"$', text).group(1).split("|")}
    assert named <= {rule["alert"] for rule in RULES}
    assert {"DatabaseDown", "DaemonDown", "IngestDown", "DiskFull", "GpuLost"} <= named
