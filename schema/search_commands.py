"""`codelupe search`: full-text search over repositories and files."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from schema.commands import HasDatabase, open_engine
from schema.search import FILE_STATES, MAX_LIMIT, REPOSITORY_STATES, Hit, Kind
from schema.search import search as find
from schema.search_index import index_new
from schema.search_snippets import Snippet, show_text


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True)
@click.option("--language", help="Only what is written in it, for example python.")
@click.option("--licence", help="Only what names this SPDX id, for example MIT.")
@click.option(
    "--state",
    type=click.Choice((*FILE_STATES, *REPOSITORY_STATES)),
    metavar="STATE",
    help=f"Only files ({', '.join(FILE_STATES)}) or repositories ({', '.join(REPOSITORY_STATES)}) in it.",
)
@click.option("--repositories", "kind", flag_value="repository", help="Only repositories.")
@click.option("--files", "kind", flag_value="file", help="Only files.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=20, show_default=True)
@click.option("--cursor", help="Where the page before ended.")
@click.option("--update", is_flag=True, help="Index what is new first, instead of waiting for a worker to do it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def search(
    settings: HasDatabase,
    words: tuple[str, ...],
    language: str | None,
    licence: str | None,
    state: str | None,
    kind: Kind | None,
    limit: int,
    cursor: str | None,
    update: bool,
    as_json: bool,
) -> None:
    """Find repositories and files that hold all of WORDS: what is named or defined so first, then the best scores.

    readFile finds read_file too; word* finds what begins so; -word leaves out what holds it.
    """
    with open_engine(settings) as engine:
        if update:
            for num in index_new(engine):
                click.echo(f"indexed {num}", err=True)
        with engine.connect() as conn:
            page = find(
                conn,
                " ".join(words),
                kind=kind,
                language=language,
                licence=licence,
                state=state,
                limit=limit,
                cursor=cursor,
            )
    if as_json:
        click.echo(json.dumps(asdict(page)))
        return
    for hit in page.hits:
        click.echo("\n".join(_describe(hit)))
    if page.next_cursor is not None:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


def _describe(hit: Hit) -> Iterator[str]:
    name = hit.repository if hit.path is None else f"{hit.repository} {hit.path}"
    states = ", ".join(f"{key} {state}" for key, state in hit.states.items())
    about = [hit.language or "no language", hit.licence or "no licence", f"score {hit.score:.0f}", states]
    yield f"{click.style(show_text(name), bold=True)}  ({', '.join(map(show_text, filter(None, about)))})"
    yield from map(_mark, hit.snippets)


def _mark(snippet: Snippet) -> str:
    parts, last = [], 0
    for begin, end in snippet.matches:
        parts += [snippet.text[last:begin], click.style(snippet.text[begin:end], fg="yellow", bold=True)]
        last = end
    return f"{snippet.line:>6}: {''.join(parts)}{snippet.text[last:]}"
