"""Debian's real Prometheus: its tool checks our files, and the server scrapes our real endpoint and runs our alerts."""

import shutil
import subprocess
import time

import pytest
import yaml
from prometheus_client import generate_latest

from monitoring import metrics, record
from monitoring.server import create_app, serve
from tests.system.prometheus import ALERTS, ROOT, Prometheus
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.system

CONFIG = ROOT / "deploy/prometheus/one-machine.yml"
CASE_FILES = [ROOT / "tests/system/alerts_test.yml", ROOT / "tests/system/alerts_day_test.yml"]
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]


def run_tool(*arguments, **options):
    assert shutil.which("promtool"), "promtool is missing: apt-get install prometheus (.ci/apt-packages)"
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE_S, **options
    )


def test_promtool_accepts_the_configuration_and_its_rules():
    done = run_tool("check", "config", str(CONFIG))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_is_silent_otherwise():
    done = run_tool("test", "rules", *map(str, CASE_FILES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_the_cases_notice_an_alert_that_never_fires(rule, tmp_path):
    groups = yaml.safe_load(ALERTS.read_text())
    for other in groups["groups"][0]["rules"]:
        if other["alert"] == rule["alert"]:
            other["expr"] = f"({other['expr']}) and vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(groups))
    for file in CASE_FILES:
        cases = yaml.safe_load(file.read_text())
        if own := [test for test in cases["tests"] if test["name"].startswith(rule["alert"] + ",")]:
            break
    (tmp_path / "cases.yml").write_text(yaml.safe_dump({**cases, "rule_files": ["alerts.yml"], "tests": own}))
    assert run_tool("test", "rules", str(tmp_path / "cases.yml")).returncode != 0


def live_like_a_daemon():
    """Record one of everything, as a daemon in the middle of a run would."""
    record.record_start(version="0.1.0", profile="tiny", line="tiny")
    record.record_database(up=True)
    record.record_audit({"pending": 5, "trained": 100}, num_unaccounted=0)
    record.record_alive()
    record.record_changed_settings(1, check_interval_s=5)
    record.record_tick("worked", 2.5)
    record.record_decision("train", "threshold_reached")
    record.record_line(backlog_rows=5, threshold_rows=100, lease_held=True, paused=False, failures_in_a_row=0)
    record.record_run_state("training", number=2)
    record.record_version(1, promoted_at_s=time.time(), verified=True)
    record.record_evaluations(
        [
            {"eval_set": "test", "metric": "bits_per_byte", "language": "", "unit": "", "model": model, "value": 2.2}
            for model in ("base", "incumbent", "candidate")
        ]
    )
    record.record_gain((0.05, 0.1, 0.15))
    record.record_files({("new", ""): 3, ("refused", "binary"): 2}, num_rows=3, num_bytes=9000)
    record.record_repository("done", {"clone": 1.5})
    record.record_queue({"working": 1})
    record.record_languages({"python": 3})
    record.record_limit("search", 29)
    record.record_windows({"done": 2})
    metrics.INGEST_WORKERS.set(2)
    record.record_event({"event": "attention", "attention": "sdpa"})
    plan = {"micro_batch": 2, "accumulation": 8, "checkpointed_layers": 3, "planned_bytes": 3 << 30}
    record.record_event({"event": "plan", **plan})
    record.record_event({"event": "phase", "phase": "train"})
    step = {"event": "step", "step": 7, "total": 40, "epoch": 0.2, "loss": 2.5, "lr": 4e-3, "grad_norm": 1.5}
    record.record_event({**step, "tokens": 4096, "tokens_per_s": 900.0, "eta_s": 33.0, "peak_bytes": 2 << 30})
    record.record_event({"event": "eval", "step": 7, "loss": 2.6, "bits_per_byte": 2.2, "best": True})
    record.record_event({"event": "checkpoint", "step": 7, "seconds": 0.4, "bytes": 9})
    metrics.RUN_SECONDS.labels("promoted").observe(60)


def test_promtool_finds_no_fault_in_what_we_export():
    live_like_a_daemon()
    done = run_tool("check", "metrics", input=generate_latest(metrics.REGISTRY).decode())
    # It would have bytes for bits; bits per byte is the field's measure of a language model.
    assert [line for line in done.stdout.splitlines() + done.stderr.splitlines() if "bits_per_byte" not in line] == []


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    live_like_a_daemon()
    server = serve(create_app(health=dict, ready=lambda: (True, []), status=dict), "127.0.0.1", 0)
    target = f"127.0.0.1:{server.port}"
    targets = {job["job_name"]: target for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]}
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), targets)
    try:
        # Three scrapes, so that increase() has something to see; and the rules evaluated once.
        scrapes = {"query": 'min(count_over_time(up{job=~"codelupe-.*"}[1m]))'}
        prometheus.wait_until(
            lambda: any(float(result["value"][1]) >= 3 for result in prometheus.ask("query", **scrapes)["result"])
        )
        prometheus.wait_until(
            lambda: all(rule["health"] != "unknown" for rule in prometheus.ask("rules")["groups"][0]["rules"])
        )
        yield prometheus
    finally:
        prometheus.stop()
        server.close()


def test_a_real_prometheus_scrapes_our_endpoint_without_an_error(prometheus):
    targets = prometheus.ask("targets")["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")] * 2


def test_a_real_prometheus_evaluates_every_alert_without_an_error(prometheus):
    rules = prometheus.ask("rules")["groups"][0]["rules"]
    assert {rule["name"]: (rule["health"], rule.get("lastError")) for rule in rules} == {
        rule["alert"]: ("ok", None) for rule in RULES
    }


def test_a_healthy_process_raises_no_alert(prometheus):
    assert [alert for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"] == []
