"""Every query of every panel and every metric, asked of a real Prometheus that saw a real service through a round."""

import json
import subprocess
import time
from types import SimpleNamespace

import pytest

from monitoring import metrics, record
from monitoring.server import create_app, serve
from tests.processes import Service, end_processes_of, make_source, steer
from tests.system.prometheus import ROOT, Prometheus

pytestmark = pytest.mark.system

QUERIES = [
    pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    for panel in json.loads(path.read_text())["panels"]
    for target in panel.get("targets", ())
]
# What Grafana puts in: four scrapes, and the time that is shown.
VARIABLES = {"$__rate_interval": "10s", "$__range": "10m"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Let a service with a card and the stand-in for the trainer make a round; yield who watched it, and since when."""
    folder = tmp_path_factory.mktemp("round")
    home, source, empty = folder / "home", make_source(folder / "source"), folder / "empty"
    (source / "broken.py").write_text("def (:\n" * 50)
    subprocess.run(["git", "init", "--quiet", str(empty)], check=True)
    steer(home, steps=30, step_s=0.2, hold_step=2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT / "tests/nvml"))
        service = Service(home, "up", str(source), str(empty), train_share=0.5, validation_share=0.1)
    crawler = serve_a_crawler()
    prometheus = None
    try:
        service.wait_until("both servers", lambda: len(service.events("http_listening")) == 2)
        addresses = [one["url"].split("/")[2] for one in service.events("http_listening")]
        jobs = ("codelupe-daemon", "codelupe-ingest", "codelupe-crawler")
        targets = dict(zip(jobs, (*addresses, f"127.0.0.1:{crawler.port}"), strict=True))
        prometheus, started = Prometheus(folder, targets), time.time()
        # It sees the training from its beginning.
        prometheus.wait_until(lambda: prometheus.ask("query", query="count(up == 1) == 3")["result"])
        (home / "go").touch()
        service.wait_for("run_concluded")
        # The audit after the round tells these; then once more for what is shown as a rate.
        told = "codelupe_version_verified and on () codelupe_evaluation_bits_per_byte and on () codelupe_store_rows"
        prometheus.wait_until(lambda: prometheus.ask("query", query=told)["result"])
        prometheus.wait_until(lambda: time.time() > started + 20)
        yield SimpleNamespace(prometheus=prometheus, started=started)
    finally:
        if prometheus is not None:
            prometheus.stop()
        crawler.close()
        end_processes_of(home)
        service.process.wait()


def serve_a_crawler():
    """Serve what a crawler records; GitHub is not asked here."""
    record.record_start(version="0.1.0", profile="tiny")
    record.record_limit("core", 4900)
    record.record_windows({"done": 2})
    return serve(create_app(health=dict, ready=lambda: (True, []), status=dict), "127.0.0.1", 0)


@pytest.mark.parametrize("expr", QUERIES)
def test_no_panel_is_empty_after_a_round(seen, expr):
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    found = seen.prometheus.ask("query_range", query=expr, start=seen.started, end=time.time(), step="1s")
    assert any(value != "NaN" for series in found["result"] for _, value in series["values"])


@pytest.mark.parametrize("metric", metrics.CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_arrives(seen, metric):
    name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
    found = seen.prometheus.ask("query", query=f"count(last_over_time({name}[10m]))")
    assert found["result"] != []


def test_a_healthy_round_fires_no_alert(seen):
    assert seen.prometheus.firing() == set()
    assert seen.prometheus.ask("query", query='count(last_over_time(ALERTS{alertstate="firing"}[10m]))')["result"] == []
