"""The runbook inside Grafana: docs/runbook.md, a panel for each section, so that every panel can lead to its own."""

from deploy.grafana.source.boards import dashboard
from deploy.grafana.source.panels import RUNBOOK_UID, Json, read_runbook


def make() -> Json:
    """Return the dashboard."""
    board = dashboard("runbook", "Runbook", "What each alert means and what to do: docs/runbook.md.", _sections())
    assert board["uid"] == RUNBOOK_UID  # noqa: S101
    return board | {"refresh": ""}


def _sections() -> list[Json]:
    return [
        {
            "type": "text",
            "title": name,
            "description": f"docs/runbook.md, section {name}",
            "gridPos": {"w": 8, "h": 9},
            "options": {"mode": "markdown", "content": text},
        }
        for name, text in read_runbook().items()
    ]
