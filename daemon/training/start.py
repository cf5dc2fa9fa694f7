"""How long a run takes to start: from its claim to each phase, and to its first optimiser step."""

import json
import time
from datetime import datetime
from pathlib import Path

from daemon.files import write_json
from daemon.job import Event
from daemon.training.child import Child

START, FIRST_STEP = "start.json", "first_step"


def watch_start(claimed_at: datetime, job_dir: Path, child: Child) -> None:
    """Note when each phase of a run begins, and tell the seconds from its claim to its first step when that is done."""
    reached_s: dict[str, float] = {}

    def take(event: Event) -> None:
        if FIRST_STEP in reached_s:
            return
        seconds = round(time.time() - claimed_at.timestamp(), 3)
        if event["event"] == "phase":
            reached_s.setdefault(event["phase"], seconds)
        elif event["event"] == "step":
            reached_s[FIRST_STEP] = seconds
            write_json(job_dir / START, dict(reached_s))
            child.emit("first_step", seconds=seconds)

    if not (job_dir / START).exists():  # else this child goes on with what another began
        child.also(take)


def read_start(job_dir: Path) -> dict[str, float]:
    """Return the seconds from the claim to each phase and to the first step; nothing where nobody noted them."""
    try:
        return dict(json.loads((job_dir / START).read_bytes()))
    except FileNotFoundError:
        return {}
