"""Write the dashboards: `python -m deploy.grafana.source`. A test says when one is stale."""

import json
from pathlib import Path
from typing import Any

from deploy.grafana.source import database, ingest, machine, models, overview, runbook, training

FOLDER = Path(__file__).parents[1] / "dashboards"
SOURCES = (overview, ingest, training, models, machine, database, runbook)


def render(board: dict[str, Any]) -> str:
    """Return a dashboard's file."""
    return json.dumps(board, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every file, and remove those that nobody makes."""
    boards = {source.__name__.rsplit(".", 1)[1]: source.make() for source in SOURCES}
    for file in FOLDER.glob("*.json"):
        if file.stem not in boards:
            file.unlink()
    for name, board in boards.items():
        (FOLDER / f"{name}.json").write_text(render(board), encoding="utf-8")


if __name__ == "__main__":
    main()
