"""What can be said about the dashboards without Prometheus; tests/system/test_dashboards.py asks one."""

import json
import re
from pathlib import Path

import pytest
import yaml

from deploy.grafana.source import __main__ as source
from deploy.grafana.source import panels
from monitoring.metrics import CATALOGUE

ROOT = Path(__file__).parents[2]
BOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] not in {"row", "text"}
]
# Of Prometheus itself and of every Python process; the rest is ours.
OTHERS = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} | {
    "process_start_time_seconds"
}
WORDS = {"sum", "max", "min", "count", "by", "without", "on", "or", "unless", "offset", "increase", "rate", "topk"} | {
    *("time", "vector", "changes", "histogram_quantile"),
}
LABELS = {"job", "instance", "le", "alertname"} | {label for metric in CATALOGUE for label in metric.labels}

every_panel = pytest.mark.parametrize("panel", PANELS)


def names_in(expr):
    """Return the metrics that an expression names, without what stands in braces, brackets and lists of labels."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without|on) \([^)]*\)|offset \S+|\$\w+", " ", expr)
    return set(re.findall(r"[a-zA-Z_]\w+", bare)) - WORDS


def test_the_files_are_what_their_sources_make():
    made = {module.__name__.rsplit(".", 1)[1]: source.render(module.make()) for module in source.SOURCES}
    found = {path.stem: path.read_text() for path in source.FOLDER.glob("*.json")}
    assert found == made, "run: python -m deploy.grafana.source"


def test_each_dashboard_has_an_identity_of_its_own_and_a_folder_provides_them():
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS) == 7
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/codelupe.yml").read_text())["providers"][
        0
    ]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]


def test_the_data_source_that_every_panel_asks_is_provisioned():
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert panels.DATASOURCE["uid"] in {one["uid"] for one in sources["datasources"]}


@every_panel
def test_a_panel_says_what_it_shows_in_which_unit(panel):
    assert panel["title"]
    assert len(panel["description"]) > 15
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == panels.DATASOURCE


@every_panel
def test_a_panel_leads_to_a_section_of_the_runbook(panel):
    (link,) = panel["links"]
    uid, number = re.fullmatch(r"/d/([\w-]+)\?viewPanel=panel-(\d+)", link["url"]).groups()
    assert uid == BOARDS["runbook"]["uid"]
    section = next(one for one in BOARDS["runbook"]["panels"] if one["id"] == int(number))
    assert link["title"] == f"Runbook: {section['title']}"
    assert f"## {section['title']}\n" in (ROOT / "docs/runbook.md").read_text()


@every_panel
def test_every_metric_that_a_panel_asks_for_is_exported(panel):
    histograms = {metric.name for metric in CATALOGUE if metric.kind == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    exported = {metric.name for metric in CATALOGUE} - histograms | parts | OTHERS
    for target in panel["targets"]:
        named = names_in(target["expr"])
        assert named
        assert named <= exported


@every_panel
def test_a_panel_groups_by_our_bounded_labels_alone(panel):
    for target in panel["targets"]:
        grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in group.split(", ")}
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert grouped | shown <= LABELS


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_overlap(name):
    taken = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_every_metric_that_a_person_may_ask_for_at_night_is_on_a_dashboard():
    shown = {
        name
        for board in BOARDS.values()
        for panel in board["panels"]
        for one in panel.get("targets", ())
        for name in names_in(one["expr"])
    }
    bare = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    # What alerts and other figures are made of, and what one would ask Prometheus for by hand.
    left_out = {metric.name for metric in CATALOGUE} - shown - bare
    assert left_out == {
        "codelupe_daemon_ticks_total",
        "codelupe_daemon_ticks_skipped_total",
        "codelupe_daemon_tick_seconds",
        "codelupe_daemon_check_interval_seconds",
        "codelupe_daemon_lease_held",
        "codelupe_daemon_paused",
        "codelupe_daemon_settings_changed",
    }
