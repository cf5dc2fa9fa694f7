"""The child process that handles one source; ingest/nursery.py forks it.

A job comes on standard input, messages go to standard output, the log to standard error.
"""

import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

from ingest.box import die_with_parent, enter_box
from ingest.clones import Clone, find_local_head
from ingest.entries import Tree
from ingest.failures import explain_failure
from ingest.folders import Folder
from ingest.licensing import Licences
from ingest.messages import Job, Message, Tagged, Unchanged
from ingest.refresh import ask_server
from ingest.shares import Shares
from ingest.visits import Past, Visit
from sourcecode.contamination import load_list
from sourcecode.limits import Limits


def main() -> None:
    """Read the job, enter the box, visit the source."""
    control = sys.stdin.buffer
    job = Job.model_validate_json(control.readline())
    die_with_parent(control)
    settings = job.settings
    enter_box(cpu_s=settings["cpu_s"], memory_bytes=settings["memory_bytes"], file_bytes=settings["file_bytes"])
    # Whatever prints to standard output by mistake must not be read as a message.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _run(job, messages)
    messages.flush()
    # The interpreter's own end would wait for git processes that nobody needs any more.
    os._exit(0)


def _run(job: Job, messages: BinaryIO) -> None:
    def say(message: Message) -> None:
        messages.write(message.model_dump_json().encode() + b"\n")

    try:
        limits = Limits(**{**job.limits, "languages": tuple(job.limits["languages"])})
        load_list(limits.benchmark_list)
        start = time.perf_counter()
        url, head, tags = _look_up(job)
        if tags is not None:
            say(Tagged(names=tags))
        if head is not None and head == job.head:
            say(Unchanged(head=head))
            return
        tree = _open_tree(job, url, head, limits)
        licences = Licences(job.licence, job.api_licence)
        past = Past(job.known, job.refused, by_other_rules=job.by_other_rules, licence=job.last_licence)
        shares = Shares(job.settings["processes"], messages.write)
        allowed = job.allowed_licences
        visit = Visit(tree, limits, past=past, licences=licences, allowed=allowed, say=say, shares=shares)
        visit.stages["clone"] = time.perf_counter() - start
        visit.run()
    except Exception as error:  # noqa: BLE001 - the edge of the child: the worker retries, and the log has the place
        say(explain_failure(error))


def _look_up(job: Job) -> tuple[str, str | None, tuple[str, ...] | None]:
    """Return where a source is now; of a repository the newest commit, and its tags where they are known."""
    if job.kind == "folder":
        return job.source, None, None
    if "://" in job.source:
        answer = ask_server(job.source, must_be_public=job.must_be_public)
        return answer.url, answer.head, answer.tags
    return job.source, find_local_head(job.source), None


def _open_tree(job: Job, url: str, head: str | None, limits: Limits) -> Tree:
    bounds = {"max_file_bytes": limits.max_file_bytes, "max_entries": job.settings["max_entries"]}
    if head is None:
        return Folder(job.source, **bounds)
    return Clone(url, head, Path(job.scratch) / "clone.git", **bounds)
