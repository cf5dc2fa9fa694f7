"""What a command trains on beside the runs: the line's training side in the database, or files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.config import Settings
from daemon.corpus import CorpusError, read_corpus
from daemon.job import Item
from daemon.prepare import as_items
from daemon.reports import open_line_of
from schema.members import stream_training_side
from schema.runs import Limits


@contextmanager
def read_items_of(settings: Settings, data: Path | None) -> Iterator[Iterator[Item]]:
    """Yield the items of a folder or file, or, without one, of the line's training side: nothing is claimed.

    Raises:
        CorpusError: there is none.
    """
    if data is not None:
        yield read_corpus(data)
        return
    daemon = settings.daemon
    with open_line_of(settings) as (conn, line):
        limits = Limits(daemon.min_quality, daemon.min_chars, max_chars_total=None, max_rows=daemon.max_rows)
        if next(stream_training_side(conn, line.id, limits), None) is None:
            raise CorpusError(
                f"line {daemon.line!r} has no row of at least quality {daemon.min_quality:g}: ingest something first, "
                "or set a smaller CODELUPE_MIN_QUALITY"
            )
        yield as_items(stream_training_side(conn, line.id, limits))
