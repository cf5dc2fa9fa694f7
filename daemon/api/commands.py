"""`codelupe token`: who may steer the service over HTTP."""

import click

from daemon.api.tokens import SCOPES, add_token, read_tokens, remove_token, tokens_file
from daemon.config import Settings
from daemon.reports import as_json, print_json, print_table
from schema.commands import open_engine
from schema.listings import list_calls


@click.group()
def token() -> None:
    """Tokens of the API: named, with scopes; only their hashes are kept."""


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="What it may do.")
@click.pass_obj
def create_token(settings: Settings, name: str, scopes: tuple[str, ...]) -> None:
    """Make the token NAME and print it, this one time. It holds at once, without a restart."""
    path = tokens_file(settings.home, settings.monitoring)
    secret = add_token(path, name, scopes)
    click.echo(f"its hash is in {path}; the token itself is shown this once:", err=True)
    click.echo(secret)


@token.command("list")
@as_json
@click.pass_obj
def list_tokens(settings: Settings, as_json: bool) -> None:
    """List the tokens' names and scopes."""
    path = tokens_file(settings.home, settings.monitoring)
    found = [{"name": one.name, "scopes": [s for s in SCOPES if s in one.scopes]} for one in read_tokens(path)]
    if as_json:
        print_json({"file": str(path), "tokens": found})
    else:
        print_table(("name", "scopes"), [(one["name"], ", ".join(one["scopes"])) for one in found])


@token.command("remove")
@click.argument("name")
@click.pass_obj
def drop_token(settings: Settings, name: str) -> None:
    """Remove the token NAME: it opens nothing any more, at once."""
    remove_token(tokens_file(settings.home, settings.monitoring), name)
    click.echo(f"token {name} is removed")


@token.command("log")
@click.option("--limit", default=20, show_default=True, help="Newest calls to show.")
@as_json
@click.pass_obj
def show_log(settings: Settings, limit: int, as_json: bool) -> None:
    """Show the last calls that were to change something: whose token, what, when, and how it ended."""
    with open_engine(settings) as engine, engine.connect() as conn:
        calls = list_calls(conn, limit=limit)
    if as_json:
        print_json({"calls": calls})
        return
    columns = ("token", "operation", "path", "address", "status", "detail")
    rows = [(f"{one['called_at']:%Y-%m-%d %H:%M:%S}", *(one[name] for name in columns)) for one in calls]
    print_table(("at (UTC)", *columns), rows)
