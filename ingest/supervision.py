"""The worker's side of the child: start it, read its messages as they come, kill it when its time is up."""

import contextlib
import dataclasses
import fcntl
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

from pydantic import ValidationError

from ingest.box import make_environment
from ingest.config import IngestSettings
from ingest.entries import SourceFailed
from ingest.messages import AnyMessage, Job, Listed, read_message
from ingest.nursery import Nursery
from ingest.policy import name_rules
from schema.repositories import Claim

# How long a read waits at most before the caller may look at its lease and its stop signal.
TICK_S = 0.5
_CHUNK_BYTES = 1 << 18
# Messages that wait while a batch is saved; a child that finds the pipe full stands still. The most that Linux gives.
_PIPE_BYTES = 1 << 20
_LOG_TAIL_BYTES = 2_000
_END_S = 5.0


class Child:
    """One child process at work on one source; leaving the context kills it with all that it has started."""

    def __init__(self, job: Job, settings: IngestSettings, nursery: Nursery) -> None:
        self._job, self._settings, self._nursery = job, settings, nursery
        self._scratch = Path(job.scratch)
        # JSON may need six bytes for a character; a longer line is not ours.
        self._max_line_bytes = 6 * settings.max_file_bytes + 64 * settings.max_entries + 1_000_000

    def __enter__(self) -> Self:
        """Start the child and hand it the job."""
        self._log = (self._scratch / "child.log").open("w+b")
        environment = make_environment(self._job.source, self._scratch)
        try:
            self._process = self._nursery.start(environment, self._scratch, self._log)
        except OSError:
            self._log.close()
            raise
        self._started = time.monotonic()
        self._until = self._started + self._settings.clone_timeout_s
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        with contextlib.suppress(PermissionError):  # of a user who has many large pipes already
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        _write_all(self._process.stdin, self._job.model_dump_json().encode() + b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill whatever is left."""
        self._process.kill()
        self._log.close()

    def read_messages(self) -> Iterator[AnyMessage | None]:
        """Yield the child's messages, and None whenever it was silent for a tick; end when it has ended.

        Raises:
            SourceFailed: it ran out of time, or said something that is no message.
        """
        rest = b""
        while True:
            self._check_time()
            if not select.select([self._fd], [], [], TICK_S)[0]:
                yield None
                continue
            chunk = os.read(self._fd, _CHUNK_BYTES)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > self._max_line_bytes:
                raise SourceFailed("child_broken", "a message without end", is_permanent=False)
            for line in lines:
                yield self._take(line)

    def explain_end(self) -> SourceFailed:
        """Return why a child that said nothing of its end is gone: by its exit status and the end of its log."""
        status = self._process.await_end(timeout_s=_END_S)
        ended = "it closed its messages and lives on" if status is None else f"exit status {status}"
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        tail = self._log.read().decode("utf-8", "replace").strip()[-300:]
        return SourceFailed("child_died", f"{ended}: {tail}", is_permanent=False)

    def _take(self, line: bytes) -> AnyMessage:
        try:
            message = read_message(line)
        except ValidationError as error:
            raise SourceFailed(
                "child_broken", f"{error.error_count()} faults in a message", is_permanent=False
            ) from error
        if isinstance(message, Listed):
            self._until = self._started + self._settings.visit_timeout_s
        return message

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            seconds = time.monotonic() - self._started
            raise SourceFailed("timeout", f"killed after {seconds:.0f} s", is_permanent=False)


def make_job(
    source: str,
    claim: Claim,
    scratch: Path,
    licences: tuple[str | None, str | None, tuple[str, ...] | None],
    known: dict[str, str],
    refused: dict[str, tuple[str, str]],
    settings: IngestSettings,
) -> Job:
    """Return the job of one visit; the licences are the operator's word, GitHub's, and what is allowed."""
    by_other_rules = name_rules(claim, settings) != claim.judged_by
    licence, api_licence, allowed = licences
    return Job.model_validate(
        {
            "source": source,
            "kind": claim.kind,
            "scratch": str(scratch),
            "licence": licence,
            "api_licence": api_licence,
            "allowed_licences": allowed,
            "must_be_public": claim.origin == "crawler" and not is_named_host(source, settings),
            "head": None if by_other_rules else claim.head_commit,
            "known": known,
            "refused": refused,
            "by_other_rules": by_other_rules,
            "last_licence": claim.last_licence,
            "limits": dataclasses.asdict(settings.limits),
            "settings": {
                "cpu_s": settings.child_cpu_s,
                "memory_bytes": settings.child_memory_bytes,
                "file_bytes": settings.clone_max_bytes,
                "max_entries": settings.max_entries,
                "processes": settings.ingest_workers,
            },
        }
    )


def is_named_host(source: str, settings: IngestSettings) -> bool:
    """Say whether a found repository lies on the server whose API the operator named, as GitHub Enterprise is."""
    api = IngestSettings.model_fields["github_api_url"].default
    return settings.github_api_url != api and urlsplit(source).netloc == urlsplit(settings.github_api_url).netloc


def _write_all(pipe: IO[bytes], data: bytes) -> None:
    """Write the job; the pipe stays open, for its end is how the child knows that we are gone."""
    view = memoryview(data)
    try:
        while view:
            view = view[pipe.write(view) or 0 :]
    except BrokenPipeError:
        return  # the child is gone already: reading it says why
