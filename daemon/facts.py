"""What a decision rests on, looked up: the rows, the hour, and what else may ask for a run."""

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from daemon import policy
from daemon.config import DaemonSettings
from daemon.policy import Facts
from daemon.windows import is_inside, next_opening
from schema.consolidations import fetch_since_consolidation
from schema.database import fetch_now
from schema.freshness import count_changes, fetch_oldest_fresh
from schema.jobs import is_run_requested
from schema.lines import Line, back_off_left_s
from schema.repositories import is_drained
from schema.runs import Limits, count_pending, count_split
from schema.suspects import count_suspects

_HOUR = dt.timedelta(hours=1)


def limits_of(settings: DaemonSettings, *, for_base: bool) -> Limits:
    """Return which rows are eligible: the one predicate that count and claim share."""
    return Limits(
        min_score=settings.min_quality,
        min_chars=settings.min_chars,
        max_rows=settings.max_rows,
        max_chars_total=settings.base_max_chars if for_base else settings.max_run_chars,
    )


def gather_facts(conn: Connection, line: Line, settings: DaemonSettings) -> Facts:
    """Return what the decision rests on. The cost does not grow with the table until a run is about to start."""
    needs_base = settings.makes_base and line.tokenizer_digest is None
    now = fetch_now(conn)
    facts = Facts(
        paused=line.paused,
        requested=is_run_requested(conn, line.id),
        needs_base=needs_base,
        num_fresh=0,
        threshold=settings.threshold_rows,
        num_test_units=None,
        min_test_units=settings.min_test_units,
        sources_unfinished=not is_drained(conn),
        retry_in_s=back_off_left_s(line, now),
        num_suspects=count_suspects(conn, line.id),
        max_age_hours=settings.max_age_hours,
        max_age_rows=settings.max_age_rows,
        watch_files=settings.watch_files,
        watch_commits=settings.watch_commits,
        watch_releases=settings.watch_releases,
    )
    facts = at_hour(facts, settings, now)
    limits = limits_of(settings, for_base=needs_base)
    facts = replace(facts, num_fresh=count_pending(conn, line.id, limits, at_most=policy.num_needed(facts)))
    if 0 < facts.num_fresh < facts.threshold and not (needs_base or facts.requested):
        facts = _with_other_triggers(conn, facts, line, settings, now)
    if facts.num_fresh < policy.num_needed(facts):
        return facts
    facts = replace(facts, num_test_units=count_split(conn, line.id, limits).get("test", {}).get("units", 0))
    return _with_consolidation(conn, facts, line, settings)


def at_hour(facts: Facts, settings: DaemonSettings, now: dt.datetime) -> Facts:
    """Return the facts with what the hour allows; `now` is aware."""
    local = now.astimezone(ZoneInfo(settings.time_zone))
    opens = next_opening(settings.train_windows, local)
    return replace(
        facts,
        local_time=_say(local),
        in_window=not settings.train_windows or is_inside(settings.train_windows, local),
        window_opens="" if opens is None else _say(opens),
        quiet=is_inside(settings.quiet_hours, local),
    )


def _say(local: dt.datetime) -> str:
    return f"{local:%a %Y-%m-%d %H:%M %Z}"


def _with_consolidation(conn: Connection, facts: Facts, line: Line, settings: DaemonSettings) -> Facts:
    if line.current_version is None or not settings.consolidate_every:
        return facts
    since = fetch_since_consolidation(conn, line.id)
    return replace(
        facts,
        num_rounds=since.num_rounds,
        consolidate_every=settings.consolidate_every,
        regression=None if since.regression is None else round(since.regression, 4),
        consolidate_regression=settings.consolidate_regression,
        held_for_old_code=since.was_held,
    )


def _with_other_triggers(
    conn: Connection, facts: Facts, line: Line, settings: DaemonSettings, now: dt.datetime
) -> Facts:
    if settings.max_age_hours is not None:
        limits = limits_of(settings, for_base=False)
        oldest = fetch_oldest_fresh(conn, line.id, limits, at_most=settings.threshold_rows)
        facts = replace(facts, oldest_hours=None if oldest is None else round((now - oldest) / _HOUR, 2))
    if settings.watch:
        changes = count_changes(conn, line.id, settings.watch)
        facts = replace(
            facts,
            watched_files=changes.num_files,
            watched_commits=changes.num_commits,
            new_releases=", ".join(changes.releases),
            unknown_watched=", ".join(changes.unknown),
        )
    return facts
