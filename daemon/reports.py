"""What people and scripts ask: why, runs, models, plan. Reads the database alone; a service need not run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from daemon.config import Settings
from schema.commands import open_engine
from schema.decisions import fetch_decisions
from schema.lines import Line, fetch_line
from schema.runs import Run, count_members, fetch_run, fetch_runs
from schema.suspects import PROBE
from schema.versions import fetch_versions

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


@contextmanager
def open_line_of(settings: Settings) -> Iterator[tuple[Connection, Line]]:
    """Yield a connection and the configured line. Raises click.ClickException when there is no such line yet."""
    with open_engine(settings) as engine, engine.connect() as conn:
        line = fetch_line(conn, settings.daemon.line)
        if line is None:
            raise click.ClickException(
                f"there is no line {settings.daemon.line!r} yet: start `codelupe up` or `codelupe daemon run` first"
            )
        yield conn, line


def describe_run(conn: Connection, run: Run) -> dict[str, Any]:
    """Return everything there is to say about a run."""
    training, gate = run.figures.get("training", {}), run.figures.get("gate", {})
    roles = count_members(conn, run.id)
    bits = gate.get("bits_per_byte", {})
    return {
        "run": run.number,
        "kind": run.kind,
        "state": run.state,
        "reason": run.reason,
        "failure": run.figures.get("failure"),
        "suspects": run.figures.get(PROBE),
        "version": run.version,
        "parent": run.parent_version,
        "bits_per_byte": {model: bits.get(model) for model in ("base", "incumbent", "candidate")},
        "gate": gate,
        "rows": roles.get("train", 0) + roles.get("base", 0),
        "replayed_rows": roles.get("replay", 0),
        "retained_rows": roles.get("consolidation", 0),
        "tokens": training.get("tokens"),
        "steps": training.get("steps"),
        "seconds": training.get("seconds"),
        "tokens_per_s": training.get("tokens_per_s"),
        "first_step_s": training.get("start_s", {}).get("first_step"),
        "peak_bytes": training.get("peak_bytes"),
        "planned_bytes": training.get("planned_bytes"),
        "micro_batch": training.get("micro_batch"),
        "checkpointed_layers": training.get("checkpointed_layers"),
        "out_of_memory": training.get("num_out_of_memory"),
        "skipped_steps": training.get("num_skipped"),
        "digests": {
            "members": run.members_digest,
            "manifest": run.artifact_digest,
            "tokenizer": training.get("tokenizer_digest"),
            "files": training.get("digests", {}),
        },
        "training": training,
        "base_revision": run.base_revision or training.get("base_revision"),
        "config": run.config,
        "decided_by": run.decided_by,
        "history": run.history,
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }


@click.command()
@click.option("--limit", default=10, show_default=True, help="Newest decisions to show.")
@as_json
@click.pass_obj
def why(settings: Settings, limit: int, as_json: bool) -> None:
    """Show the last decisions with their inputs: why it trained, why it did not, why a run failed."""
    with open_line_of(settings) as (conn, line):
        decisions = fetch_decisions(conn, line.id, limit=limit)
    if as_json:
        print_json({"line": line.name, "decisions": decisions})
        return
    columns = ("verdict", "reason", "repeated")
    rows = [
        (f"{one['last_at']:%Y-%m-%d %H:%M:%S}", *(one[name] for name in columns), _short(one["inputs"]))
        for one in decisions
    ]
    print_table(("last at (UTC)", "verdict", "reason", "times", "inputs"), rows)


@click.group()
def runs() -> None:
    """History of the training runs."""


@runs.command("list")
@click.option("--limit", default=20, show_default=True, help="Newest runs to show.")
@as_json
@click.pass_obj
def list_runs(settings: Settings, limit: int, as_json: bool) -> None:
    """List the newest runs."""
    with open_line_of(settings) as (conn, line):
        found = [describe_run(conn, run) for run in fetch_runs(conn, line.id, limit=limit)]
    if as_json:
        print_json({"line": line.name, "runs": found})
        return
    columns = ("run", "kind", "state", "reason", "version", "parent", "rows", "tokens", "seconds")
    print_table(columns, [tuple(run[name] for name in columns) for run in found])


@runs.command("show")
@click.argument("number", default="latest")
@as_json
@click.pass_obj
def show_run(settings: Settings, number: str, as_json: bool) -> None:
    """Show run NUMBER, or `latest`."""
    with open_line_of(settings) as (conn, line):
        run = find_run(conn, line, number)
        described = describe_run(conn, run)
    if as_json:
        print_json(described)
    else:
        print_fields(described)


def find_run(conn: Connection, line: Line, number: str) -> Run:
    """Return a run by its number or `latest`. Raises click.ClickException when there is none."""
    if number == "latest":
        newest = fetch_runs(conn, line.id, limit=1)
        if newest:
            return newest[0]
        raise click.ClickException(f"line {line.name} has had no run yet: `codelupe why` says what it waits for")
    run = fetch_run(conn, line_id=line.id, number=int(number)) if number.isdigit() else None
    if run is None:
        raise click.ClickException(f"line {line.name} has no run {number!r}: see `codelupe runs list`")
    return run


def find_version(conn: Connection, line: Line, version: str) -> dict[str, Any]:
    """Return a version by its number or `current`. Raises click.ClickException when there is none."""
    number = line.current_version if version == "current" else int(version) if version.isdigit() else None
    found = next((one for one in fetch_versions(conn, line.id) if one["number"] == number), None)
    if found is None:
        raise click.ClickException(f"line {line.name} has no version {version!r}: see `codelupe models list`")
    return found


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, default=str))


def print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Print a table for people."""
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        # Plain text: an error message may look like rich's markup.
        table.add_row(*(Text(_cell(value)) for value in row))
    Console().print(table)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def print_fields(document: dict[str, Any]) -> None:
    """Print one thing for people: a line per field; what is nested is for --json."""
    for name, value in document.items():
        if not isinstance(value, dict):
            click.echo(f"{name:>16}  {'' if value is None else value}")
        elif name == "failure":
            click.echo(f"{name:>16}  " + "\n".join(part for part in (value["message"], value["traceback"]) if part))
        elif name == "bits_per_byte":
            click.echo(f"{name:>16}  " + ", ".join(f"{model} {bits:.4f}" for model, bits in value.items() if bits))


def _short(inputs: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in inputs.items() if not isinstance(value, dict | list))
