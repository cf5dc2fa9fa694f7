"""`codelupe models`: versions, their lineage and evaluations, and the operator's promotion and roll-back."""

import difflib
import json
from typing import Any

import click
from sqlalchemy import Connection

from daemon.config import Settings
from daemon.paths import LinePaths
from daemon.promotion import CurrentAlready, Overtaken, Verdict, find_actor, make_current
from daemon.publish import DamagedVersion, verify_folder
from daemon.reports import as_json, describe_run, find_version, open_line_of, print_fields, print_json, print_table
from schema.commands import open_engine
from schema.evaluations import fetch_evaluations
from schema.runs import fetch_run
from schema.versions import fetch_promotions, fetch_version, fetch_versions

_reason = click.option("--reason", required=True, help="Why; it is recorded.")


@click.group()
def models() -> None:
    """Versions of the line: list, show, compare, promote, roll back."""


@models.command("list")
@as_json
@click.pass_obj
def list_models(settings: Settings, as_json: bool) -> None:
    """List every version, the current one marked."""
    with open_line_of(settings) as (conn, line):
        found = [{**one, "current": one["number"] == line.current_version} for one in fetch_versions(conn, line.id)]
        promotions = fetch_promotions(conn, line.id)
    if as_json:
        print_json({"line": line.name, "versions": found, "promotions": promotions})
        return
    columns = ("number", "verdict", "parent", "num_bytes", "created_at")
    print_table(("", *columns), [("*" if one["current"] else "", *(one[name] for name in columns)) for one in found])


@models.command("show")
@click.argument("version", default="current")
@as_json
@click.pass_obj
def show_model(settings: Settings, version: str, as_json: bool) -> None:
    """Show VERSION (a number, or `current`): run, parent, evaluation, digests, and whether its files are whole."""
    with open_line_of(settings) as (conn, line):
        described = _describe(conn, settings, find_version(conn, line, version))
    if as_json:
        print_json(described)
    else:
        print_fields(described)


@models.command("diff")
@click.argument("older")
@click.argument("newer", default="current")
@click.pass_obj
def diff_models(settings: Settings, older: str, newer: str) -> None:
    """Compare the manifests of two versions: base, configuration, members, figures."""
    with open_line_of(settings) as (conn, line):
        two = [_describe(conn, settings, find_version(conn, line, one)) for one in (older, newer)]
    texts = [json.dumps(one, indent=1, sort_keys=True, default=str).splitlines() for one in two]
    click.echo(
        "\n".join(
            difflib.unified_diff(
                texts[0], texts[1], f"version {two[0]['version']}", f"version {two[1]['version']}", n=0
            )
        )
    )


@models.command("promote")
@click.argument("version", type=int)
@_reason
@click.pass_obj
def promote_model(settings: Settings, version: int, reason: str) -> None:
    """Make VERSION current, whatever the gate said."""
    _make_current(settings, version, reason, "promoted_by_hand")


@models.command("rollback")
@click.argument("version", type=int)
@_reason
@click.pass_obj
def rollback_model(settings: Settings, version: int, reason: str) -> None:
    """Go back to VERSION. Later runs continue from it; the versions after it stay, unused."""
    _make_current(settings, version, reason, "rolled_back")


def _make_current(settings: Settings, version: int, reason: str, verdict: Verdict) -> None:
    paths = LinePaths(settings.home, settings.daemon.line)
    with open_line_of(settings) as (conn, line):
        find_version(conn, line, str(version))  # its error says what there is
    try:
        with open_engine(settings) as engine:
            previous = make_current(engine, paths, line, version, verdict=verdict, actor=find_actor(), reason=reason)
    except (CurrentAlready, DamagedVersion) as error:
        raise click.ClickException(str(error)) from error
    except Overtaken as error:
        raise click.ClickException(f"{error}: see `codelupe models list`") from error
    click.echo(f"version {version} is current; it was {previous}")


def _describe(conn: Connection, settings: Settings, version: dict[str, Any]) -> dict[str, Any]:
    run = fetch_run(conn, run_id=version["run_id"])
    if run is None:
        raise click.ClickException(f"version {version['number']} has no run: `codelupe audit` says what is wrong")
    folder = LinePaths(settings.home, settings.daemon.line).version(version["number"])
    row = fetch_version(conn, run.line_id, version["number"])
    try:
        verify_folder(folder, row["manifest_digest"] if row else None)
        damage = None
    except DamagedVersion as error:
        damage = str(error)
    return {
        **describe_run(conn, run),
        "verdict": version["verdict"],
        "path": str(folder),
        "verified": damage is None,
        "damage": damage,
        "evaluations": [one for one in fetch_evaluations(conn, run.id) if not one["unit"]],
    }
