"""Dashboards as Grafana's JSON: rows of panels, laid out on its 24 columns."""

from itertools import count

from deploy.grafana.source.panels import Json, make_link

_COLUMNS = 24


def row(title: str, *panels: Json) -> list[Json]:
    """Return a row's heading and its panels."""
    heading = {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": _COLUMNS, "h": 1}}
    return [heading, *panels]


def dashboard(name: str, title: str, description: str, *rows: list[Json], refresh: str = "15s") -> Json:
    """Return a dashboard of rows; panels fill the 24 columns from left to right."""
    panels = _place([panel for one in rows for panel in one])
    return {
        "uid": f"codelupe-{name}",
        "title": title,
        "description": description,
        "tags": ["codelupe"],
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "refresh": refresh,
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [make_link("dashboards", "codelupe", tags=["codelupe"], icon="dashboard")],
        "panels": panels,
    }


def _place(panels: list[Json]) -> list[Json]:
    """Number the panels and give each its place."""
    numbers, x, y, height = count(1), 0, 0, 0
    for panel in panels:
        place = panel["gridPos"]
        if x + place["w"] > _COLUMNS:
            x, y, height = 0, y + height, 0
        panel["id"] = next(numbers)
        panel["gridPos"] = {"x": x, "y": y, **place}
        x, height = x + place["w"], max(height, place["h"])
    return panels
