"""Sources that no parser should meet, each through the real child: a reason in the database, and the rest goes on."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.commands import queue_source
from ingest.entries import SourceFailed
from ingest.folders import Folder
from ingest.licensing import Licences
from ingest.messages import Ended, Message
from ingest.sources import normalise_source
from ingest.visits import Past, Visit
from sourcecode.limits import Limits
from tests.ingest.helpers import SETTINGS, git, make_code
from tests.ingest.hostile import make_deep_repository, make_large_repository

Fetch = Callable[..., list[tuple[object, ...]]]
_FILES = "SELECT file_path, excluded_reason FROM processed_files ORDER BY file_path, id"
_REFUSED = "SELECT file_path, reason FROM refused_files ORDER BY file_path"
_STATE = "SELECT state, reason FROM repositories ORDER BY id"
_LARGE_BYTES = 300_000_000
# Less memory than the file has bytes: whoever read it whole would die of it.
_LITTLE_MEMORY = SETTINGS.model_copy(update={"child_memory_bytes": 268_435_456, "max_attempts": 1})


def test_a_file_of_300_mb_is_not_read(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("large", {"a.py": make_code("a"), "large.py": ""})
    os.truncate(root / "large.py", _LARGE_BYTES)
    ingest(root, settings=_LITTLE_MEMORY)
    assert fetch(_FILES) == [("a.py", None)]
    assert fetch(_REFUSED) == [("large.py", "too_large")]


def test_a_bomb_for_the_parser_costs_its_file_alone(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    """Comments in comments take the parser a hundred megabytes a second."""
    ingest(make_folder("bomb", {"a.py": make_code("a"), "b.dart": ("/*" * 40 + "\n") * 2_500, "c.py": make_code("c")}))
    assert fetch(_FILES) == [("a.py", None), ("c.py", None)]
    [(path, reason)] = fetch(_REFUSED)
    # A slow machine takes all the time that there is before all the memory.
    assert (path, reason in ("parse_memory", "parse_time")) == ("b.dart", True)
    assert fetch(_STATE) == [("done", None)]


def test_a_blob_of_300_mb_is_not_fetched_and_streamed_where_the_server_knows_no_filter(
    ingest: Callable[..., None], fetch: Fetch, git_server: str, tmp_path: Path
) -> None:
    """The pack's limit tells the visits apart: a filtered clone lacks the blob, and git must not go and ask for it."""
    root = make_large_repository(tmp_path / "large.git", _LARGE_BYTES)
    for knows_filters, max_bytes in (("false", 2**31), ("true", 2**18)):
        git(root, "config", "uploadpack.allowFilter", knows_filters)
        ingest(f"{git_server}/large.git", settings=_LITTLE_MEMORY.model_copy(update={"clone_max_bytes": max_bytes}))
        assert fetch(_STATE) == [("done", None)]
        assert fetch(_FILES) == [("a.py", None)]
        assert fetch(_REFUSED) == [("large.py", "too_large")]


def test_a_large_blob_of_a_local_repository_is_left_there(
    ingest: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    root = make_large_repository(tmp_path / "large.git", 3_000_000)
    ingest(root)
    assert (fetch(_FILES), fetch(_REFUSED)) == ([("a.py", None)], [("large.py", "too_large")])


@pytest.mark.parametrize(("depth", "over_http"), [(100_000, False), (15_000, True)])
def test_a_tree_of_100_000_folders_in_one_another_is_refused_at_once(
    depth: int, over_http: bool, ingest: Callable[..., None], fetch: Fetch, git_server: str, tmp_path: Path
) -> None:
    """Git's own recursion ends it: that of the local clone, or of the listing where another machine sent the tree."""
    root = make_deep_repository(tmp_path / "deep.git", depth)
    ingest(f"{git_server}/deep.git" if over_http else root, settings=SETTINGS.model_copy(update={"child_cpu_s": 9}))
    assert fetch(_STATE) == [("refused", "corrupt")]


@pytest.mark.parametrize("kind", ["git", "folder"])
def test_a_path_beyond_every_limit_costs_its_file_alone(
    kind: str, make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    """1,400 folders deep in git; on disk, folders of long names that no path reaches, and 150 of short ones."""
    if kind == "git":
        ingest(make_deep_repository(tmp_path / "deep.git", 1_400))
        assert fetch(_FILES) == [("a.py", None)]
        assert fetch("SELECT reason, length(file_path) FROM refused_files") == []
        assert fetch("SELECT refusals FROM repositories") == [({"path_length": 1},)]
        return
    root = make_folder("deep", {"a.py": make_code("a"), "d/" * 150 + "b.py": make_code("b")})
    at = os.open(root, os.O_RDONLY)
    for number in range(20):
        name = f"{number:0>250}"
        os.mkdir(name, dir_fd=at)
        at = os.open(name, os.O_RDONLY, dir_fd=at)
    ingest(root)
    assert fetch(_FILES) == [("a.py", None)]
    assert fetch("SELECT reason FROM refused_files ORDER BY file_path") == [("path_length",), ("nesting",)]


def test_what_is_neither_file_nor_folder_is_not_opened(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder("special", {"a.py": make_code("a")})
    os.mkfifo(root / "pipe.py")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.py")
        ingest(root)
    assert fetch(_REFUSED) == [("pipe.py", "special"), ("socket.py", "special")]


@pytest.mark.parametrize("make", ["make_folder", "make_repository"])
def test_a_path_that_would_write_on_a_terminal_costs_its_file_and_is_shown_by_backslashes(
    make: str, request: pytest.FixtureRequest, ingest: Callable[..., None], fetch: Fetch
) -> None:
    names = {f"b{mark}.py": make_code(str(number)) for number, mark in enumerate(["\n", "\x1b[31m", "\u202e"])}
    ingest(request.getfixturevalue(make)("tool", {"a.py": make_code("a"), **names}))
    assert fetch(_FILES) == [("a.py", None)]
    assert fetch(_REFUSED) == [(rf"b{mark}.py", "path_encoding") for mark in (r"\n", r"\u202e", r"\x1b[31m")]


def test_empty_files_long_lines_carriage_returns_and_byte_order_marks_are_judged_one_by_one(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    windows = b"\xef\xbb\xbf" + make_code("windows").replace("\n", "\r\n").encode()
    ingest(make_folder("odd", {"empty.py": "", "line.py": "x = 1  # " + "y" * 200_000, "windows.py": windows}))
    assert fetch("SELECT file_path, content FROM processed_files") == [("windows.py", make_code("windows"))]
    assert fetch(_REFUSED) == [("empty.py", "too_short"), ("line.py", "minified")]


def test_a_source_that_vanishes_keeps_its_rows_and_says_so(
    make_repository: Callable[..., Path],
    make_folder: Callable[..., Path],
    ingest: Callable[..., None],
    engine: sa.Engine,
    fetch: Fetch,
    git_server: str,
    tmp_path: Path,
) -> None:
    make_repository("alice/tool", {"a.py": make_code("a")})
    folder = make_folder("plain", {"b.py": make_code("b")})
    sources = [normalise_source(f"{git_server}/alice/tool/.git"), normalise_source(str(folder))]
    for is_there in (True, False):
        with engine.begin() as conn:
            for source in sources:
                queue_source(conn, source)
        ingest()
        if is_there:
            assert fetch(_STATE) == [("done", None), ("done", None)]
            shutil.rmtree(tmp_path / "alice")
            shutil.rmtree(folder)
    assert fetch(_STATE) == [("refused", "not_found"), ("refused", "not_found")]
    assert fetch(_FILES) == [("a.py", None), ("b.py", None)]


def visit(root: Path, known: dict[str, str], *, after_listing: Callable[[], object] = bool) -> list[Message]:
    """Visit a folder here, with something happening once it is listed; return what the child would say."""

    class Changing(Folder):
        def list_entries(self):  # type: ignore[no-untyped-def]
            entries = super().list_entries()
            after_listing()
            return entries

    said: list[Message] = []
    tree = Changing(str(root), max_file_bytes=10_000, max_entries=100)
    Visit(
        tree,
        Limits(max_file_bytes=10_000),
        past=Past(known, licence="MIT"),
        licences=Licences("MIT", None),
        say=said.append,
    ).run()
    return said


def test_a_folder_that_vanishes_while_it_is_read_fails_the_visit_and_no_file(make_folder: Callable[..., Path]) -> None:
    root = make_folder("going", {"a.py": make_code("a")})
    with pytest.raises(SourceFailed, match="not_found"):
        visit(root, {"a.py": "0" * 40}, after_listing=lambda: shutil.rmtree(root))


def test_files_that_change_while_the_folder_is_read_are_taken_as_they_are_then(
    make_folder: Callable[..., Path],
) -> None:
    root = make_folder("moving", {f"{name}.py": make_code(name) for name in ("deleted", "grown", "huge", "linked")})

    def change() -> None:
        (root / "deleted.py").unlink()
        (root / "grown.py").write_text(make_code("grown") * 3)
        (root / "huge.py").write_text(make_code("huge") * 300)
        (root / "linked.py").unlink()
        (root / "linked.py").symlink_to("/etc/passwd")

    said = {getattr(message, "path", ""): message for message in visit(root, {}, after_listing=change)}
    reasons = {path: getattr(message, "reason", None) for path, message in said.items() if path}
    assert reasons == {
        "deleted.py": "unreadable",
        "grown.py": None,
        "huge.py": "too_large",
        "linked.py": "unreadable",
    }
    assert getattr(said["grown.py"], "text", "") == make_code("grown") * 3


@pytest.fixture
def _forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder named `secret` may be looked into, not even by root."""
    scandir = os.scandir

    def refuse(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        if Path(os.fsdecode(path)).name == "secret":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)


@pytest.mark.usefixtures("_forbidden")
def test_what_lies_below_a_folder_that_may_not_be_read_is_not_taken_for_gone(make_folder: Callable[..., Path]) -> None:
    root = make_folder("tool", {"a.py": make_code("a"), "secret/b.py": make_code("b")})
    ended = visit(root, {"secret/b.py": "0" * 40, "gone.py": "1" * 40})[-1]
    assert isinstance(ended, Ended)
    assert (ended.vanished, ended.refusals) == (["gone.py"], {"unreadable": 1})


@pytest.mark.usefixtures("_forbidden")
def test_a_source_that_may_not_be_read_is_tried_again(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(SourceFailed, match="unreadable: the folder: Permission denied") as failed:
        visit(make_folder("secret", {"a.py": make_code("a")}), {})
    assert not failed.value.is_permanent


def test_no_bad_source_stops_the_next_one(
    make_repository: Callable[..., Path],
    make_folder: Callable[..., Path],
    ingest: Callable[..., None],
    engine: sa.Engine,
    fetch: Fetch,
    git_server: str,
    tmp_path: Path,
) -> None:
    """One worker, every kind of bad source in its queue, the good one last."""
    unfit = {"nul.py": b"\0" * 99, "latin.py": b"# \xe9\n" * 20}
    many = {f"{number}.py": make_code(f"n{number}") for number in range(60)}
    bad = {
        "vanished": (make_folder("vanished", {}), "refused", "not_found"),
        "broken": (make_repository("broken", {"a.py": make_code("x")}), "refused", "not_found"),
        "empty": (make_repository("empty", {}), "refused", "empty"),
        "none": (make_folder("none", unfit), "refused", "nothing_accepted"),
        "many": (make_folder("many", many), "refused", "too_many_files"),
        "deep": (make_deep_repository(tmp_path / "deep.git", 20_000), "refused", "corrupt"),
        "nobody": (f"{git_server}/nobody/nothing", "refused", "not_found"),
        "down": ("http://127.0.0.1:9/alice/tool", "dead", "clone_failed"),
    }  # fmt: skip
    good = make_folder("good", {"a.py": make_code("good")})
    with engine.begin() as conn:
        for root, _, _ in bad.values():
            queue_source(conn, normalise_source(str(root)))
        queue_source(conn, normalise_source(str(good)))
    (tmp_path / "vanished").rmdir()
    (tmp_path / "broken" / ".git" / "HEAD").write_text("nothing\n")
    ingest(settings=SETTINGS.model_copy(update={"max_entries": 50, "max_attempts": 1}))
    expected = [(str(root), state, reason) for root, state, reason in bad.values()]
    assert fetch("SELECT source, state, reason FROM repositories ORDER BY id") == [*expected, (str(good), "done", None)]
    assert fetch(_FILES) == [("a.py", None)]
