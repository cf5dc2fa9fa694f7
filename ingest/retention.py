"""`codelupe ingest prune`, and the same once a day in whichever worker comes first."""

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click
import sqlalchemy as sa

from ingest.alive import Alive, say_nothing
from ingest.config import Settings
from ingest.opt_outs import OptOutFiles
from monitoring.progress import Progress
from monitoring.stopping import stop_on_signals
from schema.chores import finish_chore, take_chore
from schema.commands import open_engine
from schema.retention import count_prunable, prune_contents

log = logging.getLogger(__name__)
CHORE = "prune"
_EVERY = dt.timedelta(days=1)
# A worker asks the database this often whether the chore is due.
_LOOK_EVERY_S = 60.0


class Caretaker:
    """What the threads of one worker share, so that one of them looks now and then."""

    def __init__(self, engine: sa.Engine, *, days: int, opt_out: Sequence[Path] = ()) -> None:
        self._engine, self._days = engine, days
        self.opt_outs = OptOutFiles(engine, opt_out)
        self._looked_at = -_LOOK_EVERY_S
        self._lock = threading.Lock()

    def look(self, stop: threading.Event, alive: Alive) -> None:
        """Drop old contents if that is due, and nobody is at it; until `stop` is set, with signs of life."""
        with self._lock:
            if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
                return
            self._looked_at = time.monotonic()
        with self._engine.begin() as conn:
            is_due = take_chore(conn, CHORE, every=_EVERY)
        if is_due:
            num_contents, num_chars = run_prune(self._engine, days=self._days, stop=stop, alive=alive)
            log.info(
                "%d old contents dropped, %.1f million characters",
                num_contents,
                num_chars / 1e6,
                extra={"event": "pruned"},
            )


def run_prune(
    engine: sa.Engine,
    *,
    days: int,
    stop: threading.Event,
    alive: Alive = say_nothing,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Drop old contents; return how many, and their characters. What a stop leaves is done by whoever comes next."""
    task = progress.task("prune") if progress else None
    num_contents = num_chars = 0
    try:
        for pruned in prune_contents(engine, days=days):
            num_contents += pruned.num_contents
            num_chars += pruned.num_chars
            alive(database_up=True)
            if stop.is_set():
                return num_contents, num_chars
            if task is not None:
                task.update(pruned.last_id, pruned.max_id, dropped=num_contents)
    finally:
        if task is not None:
            task.done()
    with engine.begin() as conn:
        figures = {"contents": num_contents, "chars": num_chars}
        finish_chore(conn, CHORE, every=_EVERY, figures=figures)
    return num_contents, num_chars


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be dropped, by reason; drop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def prune(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Drop the contents of files that have been out of training for retention_days; their rows stay.

    Those are earlier versions, vanished files, duplicates, and whatever else is excluded; a run that is open keeps its
    own. Workers do this by themselves once a day.
    """
    days = settings.ingest.retention_days
    with open_engine(settings) as engine:
        if dry_run:
            with engine.begin() as conn:
                found = count_prunable(conn, days=days)
            report = {"days": days, "contents": {reason: num for reason, (num, _) in found.items()}}
            words = [
                f"would drop {num} {reason}, {chars / 1e6:.1f} million characters"
                for reason, (num, chars) in found.items()
            ]
        else:
            stop = threading.Event()
            with stop_on_signals(stop), Progress(every_s=settings.monitoring.progress_every_s) as progress:
                num, chars = run_prune(engine, days=days, stop=stop, progress=progress)
            report = {"days": days, "dropped": num, "chars": chars}
            words = [f"dropped {num} contents, {chars / 1e6:.1f} million characters"]
    click.echo(json.dumps(report) if as_json else "\n".join(words or ["nothing to drop"]))
