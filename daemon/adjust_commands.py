"""`codelupe config set`, `unset` and `history`: settings of a running daemon, changed without a restart."""

import json
from typing import Any, get_origin

import click

from daemon.adjust import WrongValue, adjust, change_setting
from daemon.config import DaemonSettings, Settings
from daemon.promotion import find_actor
from daemon.reports import as_json, open_line_of, print_json, print_table
from schema.commands import connect_engine, prepare_tables
from schema.database import DatabaseRefused, DatabaseUnavailable, RevisionMismatch, wait_for
from schema.lines import fetch_line
from schema.places import EmbeddedError, find_places
from schema.setting_changes import fetch_changed, list_changes


@click.command("set")
@click.argument("name")
@click.argument("value")
@click.option("--reason", required=True, help="Why; it is recorded.")
@click.pass_obj
def set_value(settings: Settings, name: str, value: str, reason: str) -> None:
    """Change the setting NAME of the running daemon to VALUE, from its next tick on, until `unset`.

    A list is words between commas; `none` unsets what may be unset. What was set so goes over environment and file,
    also after a restart.
    """
    _change(settings, name, _parse(name, value), reason=reason)


@click.command()
@click.argument("name")
@click.option("--reason", help="Why; it is recorded.")
@click.pass_obj
def unset(settings: Settings, name: str, reason: str | None) -> None:
    """Let the configured value of the setting NAME hold again."""
    _change(settings, name, unset=True, reason=reason)


def _change(settings: Settings, name: str, value: Any = None, *, unset: bool = False, reason: str | None) -> None:
    with open_line_of(settings) as (conn, line):
        actor = find_actor()
        now = change_setting(conn, line.id, settings.daemon, name, value, unset=unset, actor=actor, reason=reason)
        conn.commit()
    click.echo(f"{name} = {json.dumps(now.model_dump(mode='json')[name])}: from the daemon's next tick on")


def _parse(name: str, text: str) -> Any:
    """Turn a text into what the setting takes; what it may be is for the configuration's own checks."""
    if name not in DaemonSettings.model_fields:
        return text
    is_unset = text.lower() == "none"
    if get_origin(DaemonSettings.model_fields[name].annotation) is tuple:
        return [] if is_unset else [word.strip() for word in text.split(",") if word.strip()]
    return None if is_unset else text


@click.command()
@click.option("--limit", default=20, show_default=True, help="Newest changes to show.")
@as_json
@click.pass_obj
def history(settings: Settings, limit: int, as_json: bool) -> None:
    """Show which settings were changed at run time: when, by whom, from what, to what, and why."""
    with open_line_of(settings) as (conn, line):
        changes = list_changes(conn, line.id, limit=limit)
    told = [
        {
            "at": one.created_at.isoformat(timespec="seconds"),
            "setting": one.name,
            "old": one.previous,
            "new": one.value,
            "unset": not one.is_set,
            "by": one.actor,
            "reason": one.reason,
        }
        for one in changes
    ]
    if as_json:
        print_json({"line": line.name, "changes": told})
        return
    rows = [
        (one["at"], one["setting"], json.dumps(one["old"]), _say(one["new"], one["unset"]), one["by"], one["reason"])
        for one in told
    ]
    print_table(("at (UTC)", "setting", "old", "new", "by", "reason"), rows)


def _say(value: Any, is_unset: Any) -> str:
    return "as configured" if is_unset else json.dumps(value)


def read_changed(settings: Settings) -> dict[str, Any]:
    """Return what holds of the changes, by name; what keeps us from the database, or them from holding, is said."""
    if settings.database.database_url is None and not find_places(settings.home).clusters.is_dir():
        return {}
    try:
        with connect_engine(settings) as engine:
            wait_for(engine, timeout_s=0)  # who asks what is configured is not kept waiting
            prepare_tables(settings, engine)
            with engine.connect() as conn:
                line = fetch_line(conn, settings.daemon.line)
                found = {} if line is None else fetch_changed(conn, line.id)
        changed = {name: change.value for name, change in found.items()}
        adjust(settings.daemon, changed)
    except (DatabaseUnavailable, DatabaseRefused, RevisionMismatch, EmbeddedError) as error:
        click.echo(f"without what was changed at run time: {error}", err=True)
        return {}
    except WrongValue as error:
        click.echo(f"what was changed at run time is not in force, it does not fit: {error}", err=True)
        return {}
    return changed
