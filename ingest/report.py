"""`codelupe ingest report SOURCE`: every file of one source, accepted or not, and why; as text, JSON or a page."""

import contextlib
import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

from ingest.advice import FILES, advise
from ingest.config import Settings
from ingest.entries import show_text
from ingest.sources import SourceError, normalise_source
from schema.commands import open_engine
from schema.overview import fetch_files, fetch_refused, find_similar_sources, find_source

_COMPONENTS = ("structure", "documentation", "complexity", "naming", "security")
_FACTS = ("source", "origin", "state", "reason", "licence", "licence_evidence", "head_commit", "visited_at", "stars")
_NUM_SHOWN, _NUM_OF_A_REASON, _NUM_SIMILAR = 25, 3, 5
# Nothing is loaded and nothing runs, whatever a path says.
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ text-align: left; padding: 2px 10px; border-bottom: 1px solid #ddd; vertical-align: top; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style></head><body>
"""


def fetch_report(conn: sa.Connection, text: str) -> dict[str, Any]:
    """Return everything that is known of one source's files.

    Raises:
        SourceError: there is no such source.
    """
    row = _find(conn, text)
    accepted = [_describe_file(file) for file in fetch_files(conn, row["id"])]
    refused = fetch_refused(conn, row["id"])
    # What was accepted once and is refused now is shown as what it is.
    paths = {file["path"] for file in refused}
    accepted = [file for file in accepted if file["path"] not in paths]
    counted = Counter(row["refusals"])
    listed = Counter(file["reason"] for file in refused)
    reasons = (counted | listed).most_common()
    return {
        **{name: row[name] for name in _FACTS},
        "advice": advise(row["reason"]),
        "accepted": sorted(accepted, key=lambda file: (-file["score"], file["path"])),
        "refused": refused,
        "reasons": {reason: {"files": num, "meaning": FILES.get(reason, "")} for reason, num in reasons},
        "refused_unlisted": {reason: num - listed[reason] for reason, num in counted.items() if num > listed[reason]},
    }


def render_page(report: dict[str, Any]) -> str:
    """Return the report as one page that needs nothing else; all that strangers wrote is escaped."""
    title = f"Files of {_escape(report['source'])}"
    parts = [_HEAD.format(title=title), f"<h1>{title}</h1>"]
    parts.append(_table(("", ""), ((name, report[name]) for name in _FACTS if report[name] is not None)))
    accepted = report["accepted"]
    parts.append(f"<h2>{len(accepted)} accepted</h2>")
    heads = ("path", "score", *_COMPONENTS, "language", "lines", "licence", "split", "not trained on")
    parts.append(_table(heads, (_cells(file) for file in accepted)))
    refused = report["refused"]
    parts.append(f"<h2>{_count_refused(report)} refused</h2>")
    reasons = ((reason, about["files"], about["meaning"]) for reason, about in report["reasons"].items())
    parts.append(_table(("reason", "files", "meaning"), reasons))
    parts.append(f"<h3>{len(refused)} that might have been code</h3>")
    rows = ((file["path"], file["reason"], file["detail"], file["num_bytes"]) for file in refused)
    parts.append(_table(("path", "reason", "detail", "bytes"), rows))
    return "\n".join([*parts, "</body></html>\n"])


@click.command()
@click.argument("source")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def report(settings: Settings, source: str, page: Path | None, as_json: bool) -> None:
    """Say of each file of SOURCE whether it was accepted, with its score, or refused, and why."""
    with open_engine(settings) as engine, engine.begin() as conn:
        try:
            found = fetch_report(conn, source)
        except SourceError as error:
            raise click.ClickException(str(error)) from error
    if page is not None:
        page.write_text(render_page(found), encoding="utf-8")
        click.echo(f"{page}: {len(found['accepted'])} accepted, {_count_refused(found)} refused", err=True)
    if as_json:
        click.echo(json.dumps(found, default=str))
    elif page is None:
        click.echo("\n".join(_describe(found)))


def _find(conn: sa.Connection, text: str) -> dict[str, Any]:
    row = find_source(conn, text)
    if row is None:
        with contextlib.suppress(SourceError):
            row = find_source(conn, normalise_source(text).source)
    if row is not None:
        return row
    similar = find_similar_sources(conn, text, limit=_NUM_SIMILAR)
    meant = [source for source in similar if source.lower().endswith(f"/{text.lower()}")]
    if len(meant) == 1 and (row := find_source(conn, meant[0])) is not None:
        return row
    places = "; there are " + ", ".join(map(show_text, similar)) if similar else ""
    raise SourceError(f"{show_text(text)}: no such source is stored{places}")


def _describe_file(file: dict[str, Any]) -> dict[str, Any]:
    detail = file.pop("detail")
    return {**file, "components": detail.get("components", {}), "licence_evidence": detail.get("licence")}


def _describe(found: dict[str, Any]) -> Iterator[str]:
    reason = f", {found['reason']}: {found['advice']}" if found["reason"] else ""
    yield f"{show_text(found['source'])}: {found['state']}{reason}"
    yield f"licence {found['licence'] or 'not stated'} ({show_text(found['licence_evidence'] or 'not looked for yet')})"
    left_out = Counter(file["excluded"] for file in found["accepted"] if file["excluded"])
    why = f"; not trained on: {_join(left_out)}" if left_out else ""
    yield f"{len(found['accepted'])} accepted, the best first{why}"
    yield from _shorten(
        [f"  {file['score']:5.1f}  {show_text(file['path'])}{_exclusion(file)}" for file in found["accepted"]],
        _NUM_SHOWN,
    )
    yield f"{_count_refused(found)} refused"
    for reason, about in found["reasons"].items():
        yield f"  {about['files']:5}  {reason}: {about['meaning']}"
        files = [file for file in found["refused"] if file["reason"] == reason]
        lines = [f"           {show_text(file['path'])}  {show_text(file['detail'] or '')}".rstrip() for file in files]
        yield from _shorten(lines, _NUM_OF_A_REASON, indent="         ")
    yield "`codelupe ingest explain FILE` tells more of one file; --html and --json have all of them"


def _shorten(lines: Sequence[str], most: int, *, indent: str = "") -> Iterator[str]:
    yield from lines[:most]
    if len(lines) > most:
        yield f"{indent}  … and {len(lines) - most} more"


def _count_refused(report: dict[str, Any]) -> int:
    return sum(about["files"] for about in report["reasons"].values())


def _join(counts: Counter[str]) -> str:
    return ", ".join(f"{num} {reason}" for reason, num in counts.most_common())


def _exclusion(file: dict[str, Any]) -> str:
    if file["excluded"] is None:
        return ""
    copy = f" of {show_text(file['copy_of_source'])} {show_text(file['copy_of_path'])}" if file["copy_of_path"] else ""
    return f"  not trained on: {file['excluded']}{copy}"


def _cells(file: dict[str, Any]) -> tuple[object, ...]:
    components = (file["components"].get(name) for name in _COMPONENTS)
    why = _exclusion(file).removeprefix("  not trained on: ")
    licence = file["licence"] or "not stated"
    return (file["path"], file["score"], *components, file["language"], file["num_lines"], licence, file["split"], why)


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{_escape(name)}</th>" for name in heads)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f'<td class="n">{value:,.1f}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'
    return f"<td>{_escape(value)}</td>"


def _escape(value: object) -> str:
    return "" if value is None else html.escape(show_text(str(value)))
