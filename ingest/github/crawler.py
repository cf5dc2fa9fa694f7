"""The crawler: claims a window, reads it page by page, judges what it shows, and saves each page with its cursor.

`crawl_one` is the step: it returns whether there was work. The loop around it alone survives whatever happens.
"""

import datetime as dt
import logging
from collections.abc import Sequence

from ingest.github.answers import ApiError, BadTokens, Rejected
from ingest.github.clock import Stopped
from ingest.github.context import Crawler
from ingest.github.pages import read_whole_page, save
from ingest.github.plans import to_new
from ingest.github.replies import PER_PAGE, Page
from ingest.github.windows import MAX_RESULTS, MAX_WINDOWS, Window, split
from monitoring import record
from schema.crawl import (
    StaleWindow,
    WindowClaim,
    claim_window,
    close_passes,
    count_windows,
    finish_window,
    postpone_window,
    release_window,
    restart_window,
    split_window,
)
from schema.database import is_outage

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 5
_FIRST_DELAY_S, _MAX_DELAY_S = 30.0, 3600.0
_MAX_INCOMPLETE = 3
# Repositories vanish between two pages, and GitHub counts some that it does not show.
_FULL_SHARE = 0.995
_POLL_S = 5.0
_FIRST_OUTAGE_WAIT_S, _MAX_OUTAGE_WAIT_S = 1.0, 30.0


def crawl(crawler: Crawler) -> None:
    """Read windows until none is left to read, or it is time to stop.

    Raises:
        BadTokens: GitHub accepts none of the tokens.
    """
    wait_s = 0.0
    while not (wait_s and crawler.clock.wait(wait_s)) and not crawler.clock.is_stopped():
        try:
            if not crawler.opt_outs.look():
                crawler.alive()
                wait_s = _POLL_S
                continue
            if crawl_one(crawler):
                wait_s = 0.0
                continue
            with crawler.engine.begin() as conn:
                counts = count_windows(conn, crawler.plan.name, crawler.plan.languages)
            crawler.alive(database_up=True)
            if not counts["pending"] and not counts["working"]:
                return
            wait_s = _POLL_S
        except Stopped:
            return
        except BadTokens:
            raise
        except Exception as error:
            record.record_loop_error("crawl")
            if is_outage(error):
                crawler.alive(database_up=False)
                wait_s = min(_MAX_OUTAGE_WAIT_S, max(_FIRST_OUTAGE_WAIT_S, 2 * wait_s))
                log.warning("the database is away; next try in %.0f s", wait_s, extra={"event": "database_away"})
            else:
                wait_s = _POLL_S
                log.exception("a step of the crawler failed", extra={"event": "crawl_step_failed"})


def crawl_one(crawler: Crawler) -> bool:
    """Claim the next window and read it; return whether there was one."""
    plan, settings = crawler.plan, crawler.settings
    with crawler.engine.begin() as conn:
        claim = claim_window(conn, plan.name, plan.languages, lease_s=settings.lease_s, now=crawler.clock.utc())
    if claim is None:
        return False
    crawler.claim, crawler.kept_at = claim, crawler.clock.now()
    try:
        _read_window(crawler, claim)
    except StaleWindow as error:
        log.warning("%s", error, extra={"event": "window_lost"})
    except (Stopped, BadTokens):
        with crawler.engine.begin() as conn:
            release_window(conn, claim)
        raise
    except ApiError as error:
        # A page that is not accepted would not be the next time: its window begins again.
        _postpone(crawler, claim, error.reason, str(error), restart=isinstance(error, Rejected))
    except Exception as error:
        if is_outage(error):
            raise
        record.record_loop_error("crawl")
        log.exception("a window could not be read", extra={"event": "crawl_window_failed"})
        _postpone(crawler, claim, "error", f"{claim.query}: {type(error).__name__}")
    finally:
        crawler.claim = None
    with crawler.engine.begin() as conn:
        close_passes(conn, plan.name, plan.languages)
        counts = count_windows(conn, plan.name, plan.languages)
    record.record_windows(counts)
    crawler.show(counts)
    crawler.alive(database_up=True)
    return True


def _read_window(crawler: Crawler, claim: WindowClaim) -> None:
    """Read a window from its cursor to its end, or find that it has to be split."""
    window = Window.from_json(claim.box)
    url: str | None = claim.cursor or crawler.client.search_url(claim.query)
    num_pages, num_read, num_incomplete = -(-claim.num_found // PER_PAGE), claim.num_found, 0
    total, asked = claim.total or 0, set[str]()
    while url is not None and num_pages < claim.max_pages:
        page, saved = read_whole_page(crawler, url)
        if page is not None and page.is_incomplete:
            num_incomplete += 1
            if num_incomplete < _MAX_INCOMPLETE:
                continue
            _give_way(crawler, claim, window, page)
            return
        asked.add(url)
        if saved.next_url in asked:
            raise Rejected("broken_link", f"{url}: the next page is one that was read already")
        total = saved.total
        parts = _split(crawler, window, total) if num_pages == 0 else []
        save(crawler, claim, page, saved, next_url=None if parts else saved.next_url)
        if parts:
            _part(crawler, claim, parts, total)
            return
        num_pages, num_read, num_incomplete, url = num_pages + 1, num_read + saved.num_items, 0, saved.next_url
    # More than on the first page: what was pushed meanwhile, or a count that was wrong.
    if parts := _split(crawler, window, total):
        _part(crawler, claim, parts, total)
        return
    _finish(crawler, claim, total, num_read)


def _split(crawler: Crawler, window: Window, total: int) -> list[Window]:
    """Return the parts of a window that holds more than GitHub shows, none if it fits or cannot be split."""
    if total <= MAX_RESULTS or not crawler.plan.splits or not _may_split(crawler):
        return []
    return split(window, total, crawler.clock.utc().date())


def _may_split(crawler: Crawler) -> bool:
    """Say whether there are fewer windows than any honest count of repositories asks for."""
    with crawler.engine.begin() as conn:
        counts = count_windows(conn, crawler.plan.name, crawler.plan.languages)
    return sum(counts.values()) < MAX_WINDOWS


def _part(crawler: Crawler, claim: WindowClaim, parts: Sequence[Window], total: int) -> None:
    with crawler.engine.begin() as conn:
        split_window(conn, claim, [to_new(part, crawler.plan) for part in parts], total=total)


def _give_way(crawler: Crawler, claim: WindowClaim, window: Window, page: Page) -> None:
    """Split a window that GitHub does not search to its end in time; what cannot be split is read again later."""
    can_split = crawler.plan.splits and page.total > PER_PAGE  # else the parts would be no quicker to search
    parts = split(window, page.total, crawler.clock.utc().date()) if can_split and _may_split(crawler) else []
    if not parts:
        _postpone(crawler, claim, "incomplete", f"{claim.query}: GitHub did not search it to its end")
        return
    _part(crawler, claim, parts, page.total)


def _finish(crawler: Crawler, claim: WindowClaim, total: int, num_read: int) -> None:
    """End a window; say what of it nobody sees, and read one again, once, that shows less than it promised."""
    reason = None
    expected = min(total, PER_PAGE * claim.max_pages)
    if num_read < expected * _FULL_SHARE and claim.attempts:
        reason = f"short: {num_read} of {expected} results were shown"
    elif num_read < expected * _FULL_SHARE:
        _postpone(crawler, claim, "short", f"{claim.query}: {num_read} of {expected} results", restart=True)
        return
    elif total > expected and crawler.plan.splits:
        reason = f"capped: {total - expected} of {total} results are not shown"
        log.warning("%s: %s", claim.query, reason, extra={"event": "window_capped"})
    with crawler.engine.begin() as conn:
        finish_window(conn, claim, reason=reason, now=crawler.clock.utc())


def _postpone(crawler: Crawler, claim: WindowClaim, reason: str, detail: str, *, restart: bool = False) -> None:
    delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2**claim.attempts)
    until = crawler.clock.utc() + dt.timedelta(seconds=delay_s)
    with crawler.engine.begin() as conn:
        if restart:
            restart_window(conn, claim)
        state = postpone_window(conn, claim, reason, until=until, max_attempts=_MAX_ATTEMPTS)
    log.warning(
        "%s (%s)",
        detail,
        "kept for later" if state == "kept" else f"again in {delay_s:.0f} s",
        extra={"event": "window_postponed", "reason": reason},
    )
