"""`codelupe ingest index`: bands for the files that were stored without them, or with those of an older version."""

import threading
from collections.abc import Callable

import sqlalchemy as sa

from schema.bands import fetch_unindexed, save_bands
from sourcecode.near_duplicates import BANDS_VERSION, make_bands

BATCH_ROWS = 200


def index_files(engine: sa.Engine, *, stop: threading.Event, show: Callable[[int], None]) -> int:
    """Index what is not indexed yet, in batches beside running workers; return the number of files.

    `show` is told the number so far. It may be stopped and started again at any time.
    """
    num_files = after = 0
    while not stop.is_set():
        with engine.begin() as conn:
            texts = fetch_unindexed(conn, after=after, version=BANDS_VERSION, limit=BATCH_ROWS)
        if not texts:
            break
        bands = {file_id: make_bands(text) for file_id, text in texts.items()}
        with engine.begin() as conn:
            save_bands(conn, bands, version=BANDS_VERSION)
        after, num_files = max(texts), num_files + len(texts)
        show(num_files)
    return num_files
