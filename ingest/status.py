"""`codelupe ingest status`: the queue and its pace, what was refused and why, and what is stored."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import click
import sqlalchemy as sa

from ingest.advice import advise
from ingest.config import Settings
from monitoring.progress import format_duration
from schema.commands import open_engine
from schema.overview import count_refused_sources, count_rows, fetch_rates, sum_refusals
from schema.repositories import fetch_queue_counts, fetch_repositories

NUM_SHOWN = 20
_NUM_REASONS = 12
_SHOWN = (
    *("source", "kind", "state", "reason", "attempts", "visited_at", "file_count", "code_lines", "quality_score"),
    *("licence", "unit_level", "refusals"),
)


def fetch_status(conn: sa.Connection, *, limit: int = NUM_SHOWN) -> dict[str, Any]:
    """Return the queue's counts by state, the newest sources, and the reasons for refusal summed over them."""
    rows = fetch_repositories(conn, limit=limit)
    refusals: Counter[str] = Counter()
    for row in rows:
        refusals.update(row["refusals"])
    return {
        "queue": fetch_queue_counts(conn),
        "refusals": dict(refusals.most_common()),
        "sources": [{"advice": advise(row["reason"]), **{key: row[key] for key in _SHOWN}} for row in rows],
    }


def fetch_overview(conn: sa.Connection, *, limit: int = NUM_SHOWN) -> dict[str, Any]:
    """Return the status with rates, the time until the queue is empty (seconds, None: unknown) and sums over all."""
    status = fetch_status(conn, limit=limit)
    rates = fetch_rates(conn)
    num_left = status["queue"]["queued"] + status["queue"]["working"]
    pace = rates["repositories_per_h"]
    eta_s = 0.0 if not num_left else num_left / pace * 3600 if pace else None
    return {
        **status,
        "rates": rates,
        "eta_s": eta_s,
        "refusals": sum_refusals(conn),
        "refused_sources": count_refused_sources(conn),
        **count_rows(conn),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--limit", default=NUM_SHOWN, show_default=True, help="Show this many sources at most.")
@click.pass_obj
def status(settings: Settings, as_json: bool, limit: int) -> None:
    """Show the queue and its pace, the sources, why files were refused, and what is stored."""
    with open_engine(settings) as engine, engine.begin() as conn:
        report = fetch_overview(conn, limit=limit)
    click.echo(json.dumps(report, default=str) if as_json else "\n".join(_describe(report)))


def _describe(report: dict[str, Any]) -> Iterator[str]:
    yield "queue: " + ", ".join(f"{num} {state}" for state, num in report["queue"].items())
    yield _describe_pace(report["rates"], report["eta_s"])
    for row in report["sources"]:
        score = "" if row["quality_score"] is None else f", score {row['quality_score']:.0f}"
        reason = f" ({row['reason']}: {row['advice']})" if row["reason"] else ""
        yield f"  {row['state']:<8}{row['source']}: {row['file_count']} files{score}{reason}"
    for title, counts in (
        ("refused", report["refusals"]),
        ("sources given up", report["refused_sources"]),
        ("excluded", report["excluded"]),
        ("licences", report["licences"]),
    ):
        if counts:
            yield f"{title}: {_join(counts)}"
    for language, splits in report["rows"].items():
        yield f"  {language:<12}{sum(splits.values()):>10} rows: {_join(splits)}"


def _describe_pace(rates: Mapping[str, float], eta_s: float | None) -> str:
    if not rates["repositories_per_h"]:
        return "last hour: no visit" + ("" if eta_s == 0 else ", time left unknown: is `codelupe ingest work` running?")
    left = "unknown" if eta_s is None else format_duration(eta_s)
    return (
        f"last hour: {rates['files_per_s']:.1f} files/s, {rates['bytes_per_s'] / 1e6:.2f} MB/s, "
        f"{rates['repositories_per_h']:.0f} repositories/h, {left} left"
    )


def _join(counts: Mapping[str, int]) -> str:
    shown = [f"{num} {name}" for name, num in list(counts.items())[:_NUM_REASONS]]
    rest = sum(list(counts.values())[_NUM_REASONS:])
    return ", ".join([*shown, f"{rest} other"] if rest else shown)
