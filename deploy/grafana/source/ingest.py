"""Ingest: the queue, what is read and stored, what is refused and why, how long it takes, and the crawler."""

from deploy.grafana.source.boards import dashboard, row
from deploy.grafana.source.panels import Json, bad_below, bars, graph, rise, stat

_INGEST = 'job="codelupe-ingest"'
_CRAWLER = 'job="codelupe-crawler"'
_RATE = "[$__rate_interval]"


def make() -> Json:
    """Return the dashboard."""
    return dashboard(
        "ingest",
        "Ingest",
        "What is read, stored and refused, and what the crawler finds.",
        row("Now", *_now()),
        row("Sources and files", *_files()),
        row("Crawler", *_crawler()),
    )


def _now() -> list[Json]:
    queue = f"max by (state) (codelupe_ingest_queue_repositories{{{_INGEST}}})"
    return [
        stat(
            "Waiting",
            "Sources in the queue that nobody reads yet.",
            f'max(codelupe_ingest_queue_repositories{{{_INGEST}, state="queued"}})',
            "short",
            "IngestStarved",
        ),
        stat(
            "Being read",
            "Sources that a worker has claimed.",
            f'max(codelupe_ingest_queue_repositories{{{_INGEST}, state="working"}})',
            "short",
            "IngestStuck",
        ),
        stat(
            "Workers",
            "Threads of all workers that take sources from the queue.",
            f"sum(codelupe_ingest_workers{{{_INGEST}}})",
            "none",
            "IngestDown",
            steps=bad_below(1, 1),
        ),
        stat(
            "Rows in the range",
            "Rows stored within the time that is shown.",
            f"sum(increase(codelupe_ingest_rows_total{{{_INGEST}}}[$__range]))",
            "short",
            "IngestStarved",
        ),
        stat(
            "Last row",
            "Time since a row was last stored by a process that runs.",
            f"time() - max(codelupe_ingest_last_row_timestamp_seconds{{{_INGEST}}})",
            "s",
            "IngestStarved",
            nothing="none yet",
        ),
        stat(
            "Read",
            "Bytes of source files read and judged within the time that is shown.",
            f"sum(increase(codelupe_ingest_bytes_total{{{_INGEST}}}[$__range]))",
            "decbytes",
            "IngestStarved",
        ),
        graph(
            "Queue",
            "Sources by their state. Refused: nothing to be had. Dead: given up after several tries.",
            [(queue, "{{state}}")],
            "short",
            "SourcesDying",
            least=0,
        ),
        graph(
            "Rows stored",
            "Rows stored, a second; a visit stores them in batches.",
            [(f"sum(rate(codelupe_ingest_rows_total{{{_INGEST}}}{_RATE}))", "rows")],
            "rowsps",
            "IngestStarved",
            least=0,
        ),
        graph(
            "Bytes read",
            "Bytes a second of source files, read and judged.",
            [(f"sum(rate(codelupe_ingest_bytes_total{{{_INGEST}}}{_RATE}))", "bytes")],
            "Bps",
            "IngestStarved",
            least=0,
        ),
    ]


def _files() -> list[Json]:
    files = rise(f'codelupe_ingest_files_total{{{_INGEST}, outcome=~"refused|excluded"}}', "$__range")
    sources = rise(f"codelupe_ingest_refused_repositories_total{{{_INGEST}}}", "$__range")
    languages = rise(f"codelupe_ingest_language_files_total{{{_INGEST}}}", "$__range")
    seconds = rise(f"codelupe_ingest_stage_seconds_bucket{{{_INGEST}}}", "1h")
    return [
        graph(
            "Visits by outcome",
            "Visits to sources that ended within the hour before.",
            [
                (
                    f"sum by (outcome) (increase(codelupe_ingest_repositories_total{{{_INGEST}}}[1h]))",
                    "{{outcome}}",
                )
            ],
            "short",
            "SourcesDying",
            least=0,
            stacked=True,
        ),
        graph(
            "Files by outcome",
            "Files a second. New ones are stored, known ones were there, refused ones have a reason.",
            [(f"sum by (outcome) (rate(codelupe_ingest_files_total{{{_INGEST}}}{_RATE}))", "{{outcome}}")],
            "short",
            "IngestStarved",
            least=0,
            stacked=True,
        ),
        graph(
            "Duration of a stage, 95 % below",
            "Of each stage of the visits of the hour before. Beyond 300 s the histogram tells no more.",
            [(f"histogram_quantile(0.95, sum by (le, stage) ({seconds}))", "{{stage}}")],
            "s",
            "IngestStuck",
            least=0,
        ),
        bars(
            "Why files were refused",
            "The ten most frequent reasons within the time that is shown; `codelupe ingest explain FILE` tells one.",
            f"topk(10, sum by (reason) ({files}) > 0)",
            "{{reason}}",
            "short",
            "IngestStarved",
        ),
        bars(
            "Why sources gave nothing",
            "Visits without a row, by reason, within the time that is shown; `codelupe ingest status` says what to do.",
            f"sum by (reason) ({sources}) > 0",
            "{{reason}}",
            "short",
            "SourcesDying",
        ),
        bars(
            "Files by language",
            "Files accepted within the time that is shown.",
            f"sum by (language) ({languages})",
            "{{language}}",
            "short",
            "IngestStarved",
        ),
    ]


def _crawler() -> list[Json]:
    return [
        graph(
            "Requests left",
            "What GitHub's rate limits leave, over all tokens. The crawler waits at 0; that is no fault.",
            [(f"codelupe_crawl_limit_remaining{{{_CRAWLER}}}", "{{resource}}")],
            "short",
            "TokenRejected",
            least=0,
        ),
        graph(
            "Requests by what came of them",
            "Requests to GitHub within five minutes.",
            [(f"sum by (outcome) (increase(codelupe_crawl_requests_total{{{_CRAWLER}}}[5m]))", "{{outcome}}")],
            "short",
            "TokenRejected",
            least=0,
            stacked=True,
        ),
        graph(
            "Share of time spent waiting",
            "For a rate limit, or after a failure.",
            [(f"sum by (reason) (rate(codelupe_crawl_waited_seconds_total{{{_CRAWLER}}}[5m]))", "{{reason}}")],
            "percentunit",
            "CrawlerDown",
            least=0,
        ),
        graph(
            "Repositories found",
            "Within the hour before, by what became of them.",
            [(f"sum by (outcome) (increase(codelupe_crawl_repositories_total{{{_CRAWLER}}}[1h]))", "{{outcome}}")],
            "short",
            "IngestStarved",
            least=0,
            stacked=True,
            width=12,
        ),
        graph(
            "Questions to GitHub's search",
            "Windows of the crawl by state. A split one was too large to be shown whole and was divided.",
            [(f"max by (state) (codelupe_crawl_windows{{{_CRAWLER}}})", "{{state}}")],
            "short",
            "CrawlerDown",
            least=0,
            width=12,
        ),
    ]
