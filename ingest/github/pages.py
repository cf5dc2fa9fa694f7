"""One page of a search: fetched or known, judged, and saved with its cursor in one transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ingest.github.accept import AGEING, accept, matches, withdraw
from ingest.github.answers import ApiError
from ingest.github.context import Crawler
from ingest.github.owners import Ages
from ingest.github.replies import Found, Page, PageBroken, read_page
from monitoring import record
from schema.crawl import WindowClaim, turn_page
from schema.crawl_pages import SavedPage, fetch_pages, save_page
from schema.failpoints import hit
from schema.found import FoundRow, save_found
from schema.opt_outs import fetch_opt_outs


def read_whole_page(crawler: Crawler, url: str) -> tuple[Page | None, SavedPage]:
    """Fetch one page; None where it is the one that is saved already.

    Raises:
        ApiError: it cannot be had.
    """
    with crawler.engine.begin() as conn:
        known = fetch_pages(conn, url, crawler.rules)
    answer = crawler.client.fetch(url, {token_id: page.etag for token_id, page in known.items()})
    crawler.tally.num_pages += 1
    if answer.body is None:
        if answer.token_id not in known:
            raise ApiError("broken_body", f"{url}: as it was, says GitHub, and was never asked that")
        crawler.tally.num_unchanged += 1
        return None, known[answer.token_id]
    try:
        page = read_page(answer.body)
    except PageBroken as error:
        raise ApiError("broken_body", f"{url}: {error}") from error
    # By the address that was asked, wherever that led: the next crawl asks it again.
    rules = crawler.rules
    return page, SavedPage(
        url, answer.token_id, answer.etag or "", answer.next_url, page.total, page.num_items, judged_by=rules
    )


def save(crawler: Crawler, claim: WindowClaim, page: Page | None, saved: SavedPage, *, next_url: str | None) -> None:
    """Save a page's repositories, its ETag and the cursor in one transaction: no crash tears them apart."""
    counts: Counter[str] = Counter()
    judged = _judge(crawler, claim.language, () if page is None else page.found)
    crawler.kept_at = crawler.clock.now()
    with crawler.engine.begin() as conn:
        # Here, so that who opted out while we searched is not queued either.
        judged = withdraw(judged, fetch_opt_outs(conn))
        if judged:
            counts = save_found(conn, judged)
        # What is too young will not be, without a change of its page: that is read in full the next time.
        if page is not None and saved.etag and not any(row.reason in AGEING for row in judged):
            save_page(conn, saved)
        lease_s = crawler.settings.lease_s
        turn_page(conn, claim, cursor=next_url, total=saved.total, num_items=saved.num_items, lease_s=lease_s)
        hit("crawl.before_commit")
    counts.update({"malformed": page.num_malformed} if page is not None and page.num_malformed else {})
    record.record_found(counts)
    crawler.tally.repositories += counts
    crawler.tally.reasons.update(row.reason for row in judged if row.reason is not None)


def _judge(crawler: Crawler, language: str, found: Sequence[Found]) -> list[FoundRow]:
    """Judge what a page shows; the owners of those against whom nothing else stands are asked for last."""
    settings, now = crawler.settings, crawler.clock.utc()
    rows = [accept(each, language, settings, now=now) for each in found]
    if not settings.min_owner_age_days:
        return rows
    to_check = [
        (place, each.account)
        for place, (each, row) in enumerate(zip(found, rows, strict=True))
        if row.reason is None and not matches(each.full_name, settings.force_include)
    ]
    made_by = now - dt.timedelta(days=settings.min_owner_age_days)
    reasons = Ages(crawler.engine, crawler.client).refuse([owner for _, owner in to_check], made_by)
    for place, owner in to_check:
        if owner.id in reasons:
            rows[place] = replace(rows[place], state="refused", reason=reasons[owner.id])
    return rows
