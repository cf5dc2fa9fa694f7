"""The search's index, kept by the workers: a little every minute, all that is left when there is nothing to read."""

import datetime as dt
import math
import threading
import time

import sqlalchemy as sa

from ingest.alive import Alive
from schema.chores import finish_chore, take_chore
from schema.search_index import index_new, sweep

CHORE = "search_index"
SWEEP = "search_sweep"
_EVERY = dt.timedelta(minutes=1)
_SWEEP_EVERY = dt.timedelta(days=1)
# A twelfth of one worker while there are sources to read.
BUSY_S = 5.0


def look_after_search(engine: sa.Engine, *, is_busy: bool, stop: threading.Event, alive: Alive) -> None:
    """Do what is due for the search; beside sources that wait to be read only a little of it."""
    keep_index(engine, stop=stop, alive=alive, limit_s=BUSY_S if is_busy else math.inf)
    if not is_busy:
        sweep_index(engine, stop=stop, alive=alive)


def keep_index(engine: sa.Engine, *, stop: threading.Event, alive: Alive, limit_s: float) -> int:
    """Index what is new, for about `limit_s` seconds, if that is due and nobody is at it; return how many entries."""
    with engine.begin() as conn:
        if not take_chore(conn, CHORE, every=_EVERY):
            return 0
    began, num_entries = time.monotonic(), 0
    for num in index_new(engine):
        num_entries += num
        alive(database_up=True)
        if stop.is_set() or time.monotonic() - began >= limit_s:
            break
    with engine.begin() as conn:
        finish_chore(conn, CHORE, every=_EVERY, figures={"entries": num_entries})
    return num_entries


def sweep_index(engine: sa.Engine, *, stop: threading.Event, alive: Alive) -> int:
    """Forget the words of what is gone, once a day; return how many entries. A stop leaves the rest to the next one."""
    with engine.begin() as conn:
        if not take_chore(conn, SWEEP, every=_SWEEP_EVERY):
            return 0
    num_entries = 0
    for num in sweep(engine):
        num_entries += num
        alive(database_up=True)
        if stop.is_set():
            return num_entries
    with engine.begin() as conn:
        finish_chore(conn, SWEEP, every=_SWEEP_EVERY, figures={"entries": num_entries})
    return num_entries
