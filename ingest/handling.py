"""One claimed repository, from the child's first message to the row that says how the visit ended."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.entries import SourceFailed
from ingest.keeping import Keeper, Tally
from ingest.messages import Accepted, Ended, Failed, Job, Listed, Refused, Tagged, Unchanged
from ingest.nursery import Nursery
from ingest.policy import fetch_allowed, judge_api_licence, name_rules
from ingest.scratch import check_budget
from ingest.sources import source_key, standard_library
from ingest.supervision import Child, make_job
from ingest.units import decide_level
from monitoring import record
from schema.failpoints import hit
from schema.files import exclude_files, fetch_known_files, fetch_refusals, forget_refusals
from schema.release_tags import save_tags
from schema.repositories import (
    Claim,
    StaleLease,
    confirm_repository,
    finish_repository,
    forget_head,
    renew_repository,
    set_licence,
    set_local_path,
    set_rules,
    set_unit_level,
    set_visit,
)
from schema.visits import fetch_figures

log = logging.getLogger(__name__)
_RENEWALS_PER_LEASE = 3


class Stopped(Exception):
    """The worker was asked to stop: nothing is wrong with the repository."""


@dataclass(slots=True)
class Handled:
    """What a visit that went well did."""

    tally: Tally
    stages: dict[str, float]
    refusals: dict[str, int]
    num_bytes: int
    num_unchanged: int
    num_vanished: int
    num_files: int = 0
    seconds: float = field(default=0.0)


class Handler:
    """The state of one visit on the worker's side."""

    def __init__(
        self,
        engine: sa.Engine,
        claim: Claim,
        settings: IngestSettings,
        *,
        nursery: Nursery,
        should_stop: Callable[[], bool],
        show: Callable[[int, int], None],
    ) -> None:
        self._engine, self._claim, self._settings = engine, claim, settings
        self._nursery, self._should_stop, self._show = nursery, should_stop, show
        self._started = self._renewed = time.monotonic()
        self._num_seen = self._num_candidates = 0
        self._keeper: Keeper | None = None

    def run(self, scratch: Path) -> Handled:
        """Visit the source.

        Raises:
            SourceFailed: it cannot be visited. StaleLease: another worker has it. Stopped: we were asked to.
        """
        start = time.monotonic()
        with self._engine.begin() as conn:
            known = fetch_known_files(conn, self._claim.repository_id)
            refusals = fetch_refusals(conn, self._claim.repository_id)
        if (refused := judge_api_licence(self._claim, self._settings)) is not None:
            with self._engine.begin() as conn:
                exclude_files(conn, [file_id for _, file_id in known.values()], "licence")
                set_rules(conn, self._claim, name_rules(self._claim, self._settings))
            raise self._refuse_licence(refused.expression, refused.evidence)
        with self._engine.begin() as conn:
            set_local_path(conn, self._claim, str(scratch) if self._claim.kind == "git" else None)
        job = self._make_job(scratch, {path: oid for path, (oid, _) in known.items()}, refusals)
        ended = self._follow(job)
        if isinstance(ended, Unchanged):
            handled = self._confirm()
            handled.seconds = time.monotonic() - start
            return handled
        handled = self._finish(ended, [known[path][1] for path in ended.vanished if path in known])
        handled.seconds = time.monotonic() - start
        return handled

    def _follow(self, job: Job) -> Ended | Unchanged:
        with Child(job, self._settings, self._nursery) as child:
            for message in child.read_messages():
                self._stay_alive()
                if self._keeper is None and job.kind == "git":
                    check_budget(Path(job.scratch), max_bytes=self._settings.clones_max_bytes)
                if isinstance(message, Tagged):
                    with self._engine.begin() as conn:
                        save_tags(conn, self._claim.repository_id, message.names)
                elif isinstance(message, Listed):
                    self._begin(message)
                elif isinstance(message, Accepted | Refused):
                    self._keep(message)
                elif isinstance(message, Ended | Unchanged):
                    return message
                elif isinstance(message, Failed):
                    raise SourceFailed(message.reason, message.detail, is_permanent=message.is_permanent)
            raise child.explain_end()

    def _begin(self, listed: Listed) -> None:
        level = self._claim.unit_level
        if level is None:
            level = decide_level(listed.num_units, origin=self._claim.origin, min_units=self._settings.min_units)
            with self._engine.begin() as conn:
                set_unit_level(conn, self._claim, level)
        if self._claim.head_commit is not None:
            # Until this visit is finished what is stored is that of no one commit.
            with self._engine.begin() as conn:
                forget_head(conn, self._claim)
        self._num_candidates = listed.num_candidates
        self._keeper = Keeper(
            self._engine,
            self._claim,
            self._settings,
            key=source_key(self._claim.source),
            level=level,
            commit=listed.head,
        )

    def _keep(self, message: Accepted | Refused) -> None:
        if self._keeper is None:
            raise _unlisted()
        self._keeper.keep(message)
        # What was refused unread comes last, and is none of the candidates.
        self._num_seen = min(self._num_seen + 1, self._num_candidates)
        self._show(self._num_seen, self._num_candidates)

    def _finish(self, ended: Ended, vanished: list[int]) -> Handled:
        """Save the last batch, take out what is gone, and record the visit."""
        if self._keeper is None:
            raise _unlisted()
        hit("ingest.before_save")
        self._keeper.flush()
        hit("ingest.after_save")
        tally = self._keeper.tally
        if not tally.num_accepted and not ended.num_unchanged and not vanished:
            with self._engine.begin() as conn:
                forget_refusals(conn, self._claim.repository_id, ended.vanished)
                set_rules(conn, self._claim, name_rules(self._claim, self._settings))
            if ended.refusals.get("licence"):
                raise self._refuse_licence(ended.licence, ended.licence_evidence)
            raise SourceFailed("nothing_accepted", _top_reasons(ended.refusals), is_permanent=True)
        with self._engine.begin() as conn:
            if vanished:
                exclude_files(conn, vanished, "vanished")
            forget_refusals(conn, self._claim.repository_id, ended.vanished)
            figures = fetch_figures(conn, self._claim.repository_id)
            hit("ingest.before_finish")
            set_local_path(conn, self._claim, None)
            set_rules(conn, self._claim, name_rules(self._claim, self._settings))
            seconds = time.monotonic() - self._started
            set_visit(conn, self._claim, num_files=self._num_candidates, num_bytes=ended.num_bytes, seconds=seconds)
            finish_repository(
                conn,
                self._claim,
                head_commit=ended.head,
                licence=ended.licence,
                licence_evidence=ended.licence_evidence,
                quality_score=figures.mean_score,
                code_lines=figures.num_lines,
                file_count=figures.num_files,
                refusals=ended.refusals,
            )
        tally.counts.update({("known", ""): ended.num_unchanged})
        tally.counts.update({("refused", reason): num for reason, num in ended.refusals.items()})
        return Handled(
            tally=tally,
            stages=ended.stages | {"save": round(tally.save_s, 4)},
            refusals=ended.refusals,
            num_bytes=ended.num_bytes,
            num_unchanged=ended.num_unchanged,
            num_vanished=len(vanished),
            num_files=figures.num_files,
        )

    def _confirm(self) -> Handled:
        """Record that nothing has changed."""
        with self._engine.begin() as conn:
            figures = fetch_figures(conn, self._claim.repository_id)
            set_local_path(conn, self._claim, None)
            set_visit(conn, self._claim, num_files=0, num_bytes=0, seconds=time.monotonic() - self._started)
            confirm_repository(conn, self._claim)
        return Handled(Tally(), {}, {}, 0, figures.num_files, 0, figures.num_files)

    def _refuse_licence(self, licence: str | None, evidence: str) -> SourceFailed:
        with self._engine.begin() as conn:
            set_licence(conn, self._claim, licence, evidence)
        return SourceFailed("licence", f"{licence or 'none'} ({evidence})", is_permanent=True)

    def _stay_alive(self) -> None:
        if self._should_stop():
            raise Stopped
        if time.monotonic() - self._renewed < self._settings.lease_s / _RENEWALS_PER_LEASE:
            return
        with self._engine.begin() as conn:
            if not renew_repository(conn, self._claim, lease_s=self._settings.lease_s):
                raise StaleLease(f"{self._claim.source} was taken over by another worker")
        self._renewed = time.monotonic()

    def _make_job(self, scratch: Path, known: dict[str, str], refused: dict[str, tuple[str, str]]) -> Job:
        library = standard_library()
        licence = self._claim.licence or (library.licence if self._claim.source == library.source else None)
        source = self._claim.moved_to or self._claim.source
        allowed = fetch_allowed(self._claim, self._settings)
        licences = (licence, self._claim.api_licence, allowed)
        return make_job(source, self._claim, scratch, licences, known, refused, self._settings)


def report_visit(claim: Claim, handled: Handled) -> None:
    """Count a visit that went well, and say in one line what it did."""
    tally = handled.tally
    record.record_files(tally.counts, num_rows=tally.num_rows, num_bytes=handled.num_bytes)
    record.record_languages(tally.languages)
    record.record_repository("done", handled.stages)
    rate = handled.num_bytes / max(1e-9, handled.seconds) / 1e6
    log.info(
        "%s: %d files kept (%d new rows, %d unchanged, %d gone), %d refused, %.1f MB in %.1f s (%.2f MB/s)",
        claim.source,
        handled.num_files,
        tally.num_rows,
        handled.num_unchanged,
        handled.num_vanished,
        sum(handled.refusals.values()),
        handled.num_bytes / 1e6,
        handled.seconds,
        rate,
        extra={"event": "repository_done", "refusals": handled.refusals, "stages": handled.stages},
    )


def _unlisted() -> SourceFailed:
    return SourceFailed("child_broken", "it spoke of files before it listed the source", is_permanent=False)


def _top_reasons(refusals: dict[str, int]) -> str:
    top = sorted(refusals.items(), key=lambda item: -item[1])[:5]
    return ", ".join(f"{reason}: {num}" for reason, num in top) or "no files"
