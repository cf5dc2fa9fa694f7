"""What is stored is found by its words, whole and in parts; what has left is not found, and not kept."""

import contextlib
import json
import threading
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from ingest.alive import say_nothing
from ingest.opt_outs import apply_opt_outs
from ingest.searching import look_after_search
from schema.config import DatabaseSettings
from schema.database import create_engine
from schema.files import exclude_files
from schema.lines import open_line
from schema.search import SearchTimeout, search
from schema.search_commands import search as search_command
from schema.search_index import index_new, sweep
from schema.search_query import MAX_QUERY_CHARS, SearchError, parse_query
from schema.search_snippets import find_snippets
from schema.search_words import MAX_WORDS, make_words, split_word
from tests.builders import add_repository, claim_source, finish, make_file, save

FILES = {
    "src/http/client.py": "def readConfigFile(path):\n    return parse_toml(path)\n",
    "src/config.py": "class Settings:\n    '''What readConfigFile returns.'''\n    timeout_s = 30\n",
    "lib/timeout.rs": "fn sleep(seconds: u64) { std::thread::sleep(seconds) }\n",
    "docs/übung.py": "größe = 'Straße'\nprint(größe)\n",
}
VALUES = {"lib/timeout.rs": {"language": "rust", "licence": "MIT OR Apache-2.0"}, "src/config.py": {"split": "test"}}


def fill(engine):
    """Store these files of one source, and index them."""
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        store(conn, "/sources/WebToolkit", FILES)
    list(index_new(engine))


@pytest.fixture(scope="module")
def library(empty_database, migrated_template):
    """An engine on a database with these files, which no test changes."""
    engine = create_engine(empty_database(migrated_template), application_name="tests")
    fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def indexed(engine):
    """An engine on a database with these files, of a test's own."""
    fill(engine)
    return engine


def store(conn, source, files):
    claim = claim_source(conn, source)
    save(conn, claim, *(make_file(path, text, **VALUES.get(path, {})) for path, text in files.items()))
    finish(conn, claim)
    return claim.repository_id


def find(engine, query, **values):
    with engine.connect() as conn:
        return [hit.path or hit.repository for hit in search(conn, query, **values).hits]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("readConfigFile", ["src/http/client.py", "src/config.py"]),  # where it is defined comes first
        ("read_config_file", ["src/http/client.py", "src/config.py"]),
        ("config", ["src/config.py", "src/http/client.py"]),  # so does what is named so
        ("READCONFIGFILE -settings", ["src/http/client.py"]),
        ("parse toml", ["src/http/client.py"]),
        ("toml settings", []),
        ("src/http", ["src/http/client.py"]),
        ("timeo*", ["lib/timeout.rs", "src/config.py"]),
        ("größe", ["docs/übung.py"]),
        ("web toolkit", ["docs/übung.py", "lib/timeout.rs", "src/config.py", "src/http/client.py"]),
        ("'; DROP TABLE lines --", []),
        ("std::thread::sleep(", ["lib/timeout.rs"]),
    ],
)
def test_files_are_found_by_words_the_named_first(query, paths, library):
    found = find(library, query, kind="file")

    assert (sorted(found) if query == "web toolkit" else found) == paths


@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        ({"language": "Rust"}, ["lib/timeout.rs"]),
        ({"licence": "apache-2.0"}, ["lib/timeout.rs"]),
        ({"licence": "or"}, []),
        ({"state": "held_out"}, ["src/config.py"]),
        ({"kind": "repository"}, ["/sources/WebToolkit"]),
        ({"kind": "repository", "state": "done"}, ["/sources/WebToolkit"]),
        ({"kind": "repository", "state": "dead"}, []),
    ],
)
def test_filters_narrow_a_search(filters, paths, library):
    assert find(library, "toolkit", **filters) == paths


def test_a_hit_says_where_and_what_it_is(library):
    with library.connect() as conn:
        (hit,) = search(conn, "timeout_s").hits
    assert (hit.kind, hit.repository, hit.path, hit.language) == (
        "file", "/sources/WebToolkit", "src/config.py", "python",
    )  # fmt: skip
    assert (hit.states, hit.is_named) == ({"qwen": "held_out"}, False)
    (snippet,) = hit.snippets
    assert (snippet.line, snippet.text, snippet.matches) == (3, "timeout_s = 30", [(0, 9)])


def test_pages_follow_one_another_without_gap_or_repetition(engine):
    with engine.begin() as conn:
        store(conn, "/sources/many", {f"src/{n}.py": f"shared = {n}\nonly_{n} = 1\n" for n in range(25)})
    list(index_new(engine))
    found, cursor = [], None
    with engine.connect() as conn:
        while not found or cursor is not None:
            page = search(conn, "shared", limit=10, cursor=cursor)
            found += [hit.id for hit in page.hits]
            cursor = page.next_cursor
    assert (len(found), len(set(found))) == (25, 25)


QUERIES = {
    "": "no word to look for",
    "  -- '' \\ & | ! ( ": "no word to look for",
    "-only -exclusions": "no word to look for",
    "123 456": "no word to look for",
    "a*": "too short: give at least 3 characters",
    "x" * (MAX_QUERY_CHARS + 1): f"has {MAX_QUERY_CHARS + 1} characters: at most {MAX_QUERY_CHARS}",
}


@pytest.mark.parametrize("query", QUERIES)
def test_what_cannot_be_looked_for_is_said(query, conn):
    with pytest.raises(SearchError, match=QUERIES[query]):
        search(conn, query)


HOSTILE = ["a & b | !c <-> d:*", "'a' \\' || x", "\0null", "ab\u202ecd\x1b[31m", "a:*b", "((((", "😀 smile", "w " * 199]


@pytest.mark.parametrize("query", HOSTILE)
def test_no_query_breaks_the_statement(query, conn):
    with contextlib.suppress(SearchError):
        assert search(conn, query).hits == []


@pytest.mark.parametrize("cursor", ["", "x", "e30=", "W10=", "WzEsMiwzLDRd", "WzEsMSwiYSIsMWUzMDBd", "ü"])
def test_a_cursor_of_somebody_else_is_refused(cursor, conn):
    with pytest.raises(SearchError, match="is no cursor"):
        search(conn, "word", cursor=cursor)


def test_a_state_that_there_is_not_is_refused_with_those_there_are(conn):
    with pytest.raises(SearchError, match="'gone' is no state: give one of pending, "):
        search(conn, "word", state="gone")


def test_the_time_out_of_a_statement_holds(library):
    with library.begin() as other, library.connect() as conn:
        other.execute(sa.text("LOCK TABLE search_entries"))
        conn.execute(sa.text("SET statement_timeout = '50ms'"))
        with pytest.raises(SearchTimeout, match="longer than a statement may: name more words"):
            search(conn, "config")
        conn.rollback()


def count_entries(engine):
    with engine.connect() as conn:
        return dict(conn.execute(sa.text("SELECT kind, count(*) FROM search_entries GROUP BY kind")).all())


def test_what_comes_later_is_indexed_and_what_is_known_is_left_alone(indexed):
    assert list(index_new(indexed)) == []
    with indexed.begin() as conn:
        store(conn, "/sources/later", {"src/later.py": "newcomer = 1\n"})
        about = "topics = '{kubernetes}', description = 'An operator'"
        conn.execute(sa.text(f"UPDATE repositories SET {about} WHERE source = '/sources/WebToolkit'"))
    assert list(index_new(indexed)) == [2, 1]  # repositories, then files
    assert find(indexed, "newcomer") == ["src/later.py"]
    assert find(indexed, "kubernetes operator") == ["/sources/WebToolkit"]


def test_an_index_that_is_broken_off_goes_on_where_it_was(indexed, monkeypatch):
    with indexed.begin() as conn:
        conn.execute(sa.text("DELETE FROM search_entries"))
        conn.execute(sa.text("DELETE FROM chores"))
    monkeypatch.setattr("schema.search_index.BATCH_ROWS", 1)
    for _ in range(3):  # the repository, and two of the files
        batches = index_new(indexed)
        next(batches)
        batches.close()
    assert count_entries(indexed) == {"repository": 1, "file": 2}
    list(index_new(indexed))
    assert count_entries(indexed) == {"repository": 1, "file": len(FILES)}


def test_what_is_opted_out_vanishes_with_its_words(engine):
    with engine.begin() as conn:
        store(conn, "/sources/private", {"src/secret.py": "our_secret = 1\n"})
        conn.execute(sa.text("UPDATE repositories SET source = 'https://github.com/owner/private', kind = 'git'"))
    list(index_new(engine))
    assert len(find(engine, "private")) == 2

    with engine.begin() as conn:
        assert apply_opt_outs(conn, ["owner/*"]).num_repositories == 1

    assert (find(engine, "private"), find(engine, "secret"), count_entries(engine)) == ([], [], {})
    list(index_new(engine))
    assert count_entries(engine) == {}


@pytest.mark.parametrize("leave", ["vanished", "duplicate", "content"])
def test_what_left_is_not_found_and_the_words_of_what_is_gone_are_swept(leave, indexed):
    with indexed.begin() as conn:
        file_id = conn.execute(sa.text("SELECT id FROM processed_files WHERE file_path = 'src/config.py'")).scalar_one()
        if leave == "content":
            conn.execute(sa.text("UPDATE processed_files SET content = NULL WHERE id = :id"), {"id": file_id})
        else:
            exclude_files(conn, [file_id], leave)

    assert find(indexed, "settings") == []
    is_copy = leave == "duplicate"  # it may take the place of the one that it is a copy of
    assert find(indexed, "settings", state="excluded") == (["src/config.py"] if is_copy else [])
    assert sum(sweep(indexed)) == (not is_copy)
    assert count_entries(indexed)["file"] == len(FILES) - (not is_copy)


def test_storing_a_file_writes_nothing_for_the_search(engine):
    with engine.begin() as conn:
        store(conn, "/sources/here", FILES)
    assert count_entries(engine) == {}


def test_a_worker_keeps_the_index_and_looks_again_in_a_minute(engine):
    with engine.begin() as conn:
        store(conn, "/sources/here", FILES)
    for is_busy in (False, True):
        look_after_search(engine, is_busy=is_busy, stop=threading.Event(), alive=say_nothing)
    assert count_entries(engine) == {"repository": 1, "file": len(FILES)}
    with engine.connect() as conn:
        chores = dict(conn.execute(sa.text("SELECT name, figures ->> 'entries' FROM chores")).all())
    assert (chores["search_index"], chores["search_sweep"]) == (str(1 + len(FILES)), "0")


# Words and snippets: no database.


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("parseHTTPRequest2", ("parsehttprequest2", "parse", "http", "request")),
        ("_read_file", ("_read_file", "read", "file")),
        ("MAX_SIZE", ("max_size", "max", "size")),
        ("timeout", ("timeout",)),
        ("sha256", ("sha256", "sha")),
        ("mein_Ärger", ("mein_ärger", "mein", "ärger")),
        ("123_456", ()),
        ("a" * 65, ()),
    ],
)
def test_an_identifier_is_a_word_and_its_parts(word, words):
    assert split_word(word)[: len(words)] == words
    assert bool(split_word(word)) == bool(words)


def test_a_file_of_many_words_is_found_by_its_first():
    words = make_words([" ".join(f"w{n}x" for n in range(MAX_WORDS))])

    assert (len(words), words[0]) == (MAX_WORDS, "w0x")


def test_a_snippet_is_safe_on_a_terminal_and_short():
    long = "x" * 5_000 + " needle \x1b[31m\u202e " + "y" * 5_000
    parsed = parse_query("needle")
    (snippet,) = find_snippets(f"first\n{long}", parsed.words, parsed.prefixes)

    assert snippet.line == 2
    assert "\\x1b[31m\\u202e" in snippet.text
    assert len(snippet.text) <= 200
    assert [snippet.text[begin:end] for begin, end in snippet.matches] == ["needle"]


def test_the_best_three_lines_are_shown_in_their_order():
    parsed = parse_query("one two")
    content = "one\none\ntwo one\nnothing\none two\ntwo two\n"

    assert [snippet.line for snippet in find_snippets(content, parsed.words, ())] == [1, 3, 5]


def test_the_command_prints_hits_and_documents(indexed, database_url, tmp_path):
    settings = SimpleNamespace(home=tmp_path, database=DatabaseSettings(database_url=database_url))

    def run(*words):
        return CliRunner().invoke(search_command, words, obj=settings, catch_exceptions=False)

    printed = run("timeout", "--language", "rust").stdout
    assert printed.startswith("/sources/WebToolkit lib/timeout.rs  (rust, MIT OR Apache-2.0, score 80, qwen pending)")
    document = json.loads(run("config", "-settings", "--files", "--limit", "1", "--json").stdout)
    assert [hit["path"] for hit in document["hits"]] == ["src/http/client.py"]
    assert "more: --cursor " in run("toolkit", "--limit", "1").stderr
    with indexed.begin() as conn:
        add_repository(conn, "/sources/brand-new")
    assert run("brand").stdout == ""
    assert run("brand", "--update").stdout.startswith("/sources/brand-new  (")
