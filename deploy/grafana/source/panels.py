"""Panels as Grafana's JSON: what every panel must have is an argument that cannot be left out."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Query = tuple[str, str]
"""A PromQL expression and its legend."""

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
RUNBOOK = Path(__file__).parents[3] / "docs/runbook.md"
RUNBOOK_UID = "codelupe-runbook"
_GREEN, _YELLOW, _RED = "green", "orange", "red"

UP_OR_DOWN = {"1": ("up", _GREEN), "0": ("down", _RED)}
YES_OR_NO = {"1": ("yes", _GREEN), "0": ("no", _RED)}


def read_runbook() -> dict[str, str]:
    """Return the runbook's sections by heading, in their order."""
    rest = re.split(r"^## ", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.strip() for name, _, text in (section.partition("\n") for section in rest)}


def rise(series: str, window: str) -> str:
    """Return how much a counter rose; one whose labels appeared within the window began at 0, which nobody scraped."""
    return f"(({series} unless {series} offset {window}) or increase({series}[{window}]))"


def bad_above(warning: float, critical: float | None = None) -> list[Json]:
    """Return thresholds for a value that should be small."""
    steps = [{"color": _GREEN, "value": None}, {"color": _YELLOW, "value": warning}]
    return steps if critical is None else [*steps, {"color": _RED, "value": critical}]


def red_above(value: float) -> list[Json]:
    """Return thresholds for a value that is wrong from here on."""
    return [{"color": _GREEN, "value": None}, {"color": _RED, "value": value}]


def bad_below(warning: float, critical: float) -> list[Json]:
    """Return thresholds for a value that should be large."""
    return [
        {"color": _RED, "value": None},
        {"color": _YELLOW, "value": critical},
        {"color": _GREEN, "value": warning},
    ]


def stat(
    title: str,
    description: str,
    expr: str,
    unit: str,
    runbook: str,
    *,
    steps: Sequence[Json] | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    nothing: str = "not known yet",
    width: int = 4,
    height: int = 4,
    decimals: int | None = None,
) -> Json:
    """Return one figure; `words` replaces values by (text, colour), `nothing` is shown where there is none."""
    panel = _panel("stat", title, description, [(expr, "")], unit, runbook, steps=steps, width=width, height=height)
    defaults = panel["fieldConfig"]["defaults"]
    panel["targets"][0] |= {"instant": True, "range": False}  # what is gone is not shown
    defaults["noValue"] = nothing
    defaults["mappings"] = _mappings(words or {})
    if decimals is not None:
        defaults["decimals"] = decimals
    panel["options"] = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    return panel


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    runbook: str,
    *,
    steps: Sequence[Json] | None = None,
    stacked: bool = False,
    width: int = 8,
    least: float | None = None,
    most: float | None = None,
    decimals: int | None = None,
    points: bool = False,
) -> Json:
    """Return lines over time; `steps` are drawn as dashed lines."""
    panel = _panel("timeseries", title, description, queries, unit, runbook, steps=steps, width=width, height=8)
    defaults = panel["fieldConfig"]["defaults"]
    defaults["color"] = {"mode": "palette-classic"}
    defaults["custom"] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 8,
        "showPoints": "auto" if points else "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    defaults |= {
        name: value for name, value in (("min", least), ("max", most), ("decimals", decimals)) if value is not None
    }
    panel["options"] = {
        "legend": {"calcs": ["lastNotNull"], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def bars(
    title: str, description: str, expr: str, legend: str, unit: str, runbook: str, *, width: int = 8, height: int = 8
) -> Json:
    """Return one bar for each series, as it stands now."""
    panel = _panel("bargauge", title, description, [(expr, legend)], unit, runbook, width=width, height=height)
    panel["targets"][0] |= {"instant": True, "range": False}
    panel["fieldConfig"]["defaults"] |= {"min": 0, "noValue": "none", "color": {"mode": "palette-classic"}}
    if unit == "short":
        panel["fieldConfig"]["defaults"]["decimals"] = 0  # events, which are whole
    panel["options"] = {
        "displayMode": "basic",
        "maxVizHeight": 28,
        "minVizHeight": 12,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "manual",
        "text": {"titleSize": 13, "valueSize": 14},
        "valueMode": "color",
    }
    return panel


def states(
    title: str, description: str, expr: str, legend: str, runbook: str, *, width: int = 24, height: int = 6
) -> Json:
    """Return a band for each series, filled while it is 1."""
    panel = _panel("state-timeline", title, description, [(expr, legend)], "none", runbook, width=width, height=height)
    panel["fieldConfig"]["defaults"] |= {
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "mappings": _mappings({"1": ("now", "blue"), "0": (" ", "transparent")}),
    }
    panel["options"] = {
        "alignValue": "center",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel


def table(
    title: str, description: str, expr: str, columns: Sequence[str], runbook: str, *, width: int = 12, height: int = 6
) -> Json:
    """Return the labels of each series, the named ones, as a table."""
    panel = _panel("table", title, description, [(expr, "")], "none", runbook, width=width, height=height)
    panel["targets"][0] |= {"format": "table", "instant": True, "range": False}
    panel["transformations"] = [{"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}}]
    panel["options"] = {"cellHeight": "sm", "showHeader": True}
    return panel


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    runbook: str,
    *,
    steps: Sequence[Json] | None = None,
    width: int,
    height: int,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "links": [make_link("link", f"Runbook: {runbook}", url=link_to(runbook), targetBlank=True)],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "color": {"mode": "thresholds"},
                "thresholds": {"mode": "absolute", "steps": list(steps or [{"color": "text", "value": None}])},
                "mappings": [],
            },
            "overrides": [],
        },
        "options": {},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
            }
            for number, (expr, legend) in enumerate(queries)
        ],
    }


def make_link(kind: str, title: str, **fields: Any) -> Json:
    """Return a link, of a panel or of a dashboard, with all the fields that Grafana's schema asks for."""
    plain = {"asDropdown": False, "icon": "", "includeVars": False, "keepTime": True, "targetBlank": False}
    return {"type": kind, "title": title, "tags": [], "tooltip": "", "url": "", **plain, **fields}


def link_to(section: str) -> str:
    """Return where Grafana shows a section of the runbook. Raises ValueError where there is none of that name."""
    return f"/d/{RUNBOOK_UID}?viewPanel=panel-{list(read_runbook()).index(section) + 1}"


def _mappings(words: Mapping[str, tuple[str, str]]) -> list[Json]:
    if not words:
        return []
    options = {
        value: {"text": text, "color": color, "index": number}
        for number, (value, (text, color)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]
