"""Why a visit came to nothing, as the child says it."""

import traceback

from ingest.entries import SourceFailed, is_disk_full
from ingest.messages import Failed
from sourcecode.contamination import BadList


def explain_failure(error: Exception) -> Failed:
    """Return what is said of an error; of one that nobody expected the place is in the log."""
    if isinstance(error, SourceFailed):
        return Failed(reason=error.reason, detail=error.detail[:500], is_permanent=error.is_permanent)
    if isinstance(error, BadList):
        return Failed(reason="benchmark_list", detail=str(error)[:500], is_permanent=False)
    if is_disk_full(error):
        return Failed(reason="disk_full", detail=str(error)[:500], is_permanent=False)
    if isinstance(error, MemoryError):
        return Failed(reason="out_of_memory", detail="the memory limit was reached", is_permanent=False)
    traceback.print_exception(error)
    return Failed(reason="exception", detail=type(error).__name__[:500], is_permanent=False)
