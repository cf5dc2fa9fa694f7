"""Git repositories: real ones, local and over smart HTTP, and some that mean harm."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.clones import explain_clone
from ingest.commands import queue_source
from ingest.sources import SourceError, normalise_source
from tests.ingest.helpers import SETTINGS, git, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
_FILES = "SELECT file_path, excluded_reason FROM processed_files ORDER BY file_path, id"
_REFUSED = "SELECT file_path, reason FROM refused_files ORDER BY file_path"
_STATE = "SELECT state, reason FROM repositories ORDER BY id"


def test_it_reads_the_newest_commit_over_http(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, git_server: str
) -> None:
    root = make_repository(
        "alice/tool", {"a.py": make_code("old"), "src/b.go": "package b\n\n// X is one.\nconst X = 1\n" * 3}
    )
    make_repository("alice/tool", {"a.py": make_code("new"), "big.py": b"x = 1\n" * 60_000})
    ingest(f"{git_server}/alice/tool/.git")
    head = git(root, "rev-parse", "HEAD")
    rows = fetch("SELECT file_path, content, commit, blob_oid, owner FROM processed_files ORDER BY 1")
    assert rows[0] == ("a.py", make_code("new"), head, git(root, "rev-parse", "HEAD:a.py"), "tool")
    assert [row[0] for row in rows] == ["a.py", "src/b.go"]
    assert fetch(_REFUSED) == [("big.py", "too_large")]
    assert fetch("SELECT state, head_commit, file_count, local_path FROM repositories") == [("done", head, 2, None)]


def test_it_reads_what_is_committed_in_a_local_repository_and_nothing_else(
    make_repository: Callable[..., Path], make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_repository("local", {"a.py": make_code("a"), "b.py": make_code("b")})
    make_folder("local", {"a.py": make_code("uncommitted"), "new.py": make_code("new")})
    (root / ".git" / "hooks").mkdir(exist_ok=True)
    hook = root / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {root}/hooked\n")
    hook.chmod(0o755)
    ingest(root)
    assert fetch("SELECT file_path, content FROM processed_files ORDER BY 1") == [
        ("a.py", make_code("a")),
        ("b.py", make_code("b")),
    ]
    assert not (root / "hooked").exists()


def test_a_second_visit_reads_changed_blobs_alone(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_repository("again", {"a.py": make_code("a"), "b.py": make_code("b"), "c.py": make_code("c")})
    ingest(root)
    ingest(root)
    assert fetch("SELECT count(*), count(excluded_reason) FROM processed_files") == [(3, 0)]
    (root / "c.py").unlink()
    make_repository("again", {"b.py": make_code("better")})
    ingest(root)
    assert fetch(_FILES) == [("a.py", None), ("b.py", "superseded"), ("b.py", None), ("c.py", "vanished")]
    assert fetch("SELECT file_count, quality_score > 0 FROM repositories") == [(2, True)]


def test_links_submodules_and_strange_paths_are_refused_unread(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_repository("odd", {"a.py": make_code("a")})
    head = git(root, "rev-parse", "HEAD")
    link = git(root, "hash-object", "-w", "--stdin", data=b"/etc/passwd")
    (root / "x").write_text(make_code("x"))
    (root / "x").rename(os.fsdecode(os.fsencode(root) + b"/y\xff.py"))
    git(root, "-c", "core.quotePath=false", "add", ":/*.py")
    git(root, "update-index", "--add", "--cacheinfo", f"120000,{link},evil.py")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{head},module.py")
    git(root, "commit", "-q", "-m", "odd")
    ingest(root)
    assert fetch(_FILES) == [("a.py", None)]
    assert fetch(_REFUSED) == [("evil.py", "symlink"), ("module.py", "gitlink"), ("y\\xff.py", "path_encoding")]


def test_an_empty_repository_is_refused(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    ingest(make_repository("empty", {}))
    assert fetch(_STATE) == [("refused", "empty")]


def test_a_url_without_a_repository_is_refused(ingest: Callable[..., None], fetch: Fetch, git_server: str) -> None:
    ingest(f"{git_server}/nobody/nothing")
    assert fetch(_STATE) == [("refused", "not_found")]


def test_a_server_that_is_down_is_tried_again_and_then_given_up(ingest: Callable[..., None], fetch: Fetch) -> None:
    ingest("http://127.0.0.1:9/alice/tool", settings=SETTINGS.model_copy(update={"max_attempts": 2}))
    assert fetch("SELECT state, reason, attempts FROM repositories") == [("dead", "clone_failed", 2)]


def test_a_tree_that_unfolds_without_end_is_refused(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    """The git bomb: ten levels of ten entries that are all the same tree, 10,000,000,000 paths in a few objects."""
    root = make_repository("bomb", {"a.py": make_code("a")})
    oid, mode, kind = git(root, "rev-parse", "HEAD:a.py"), "100644", "blob"
    for _ in range(10):
        listing = "".join(f"{mode} {kind} {oid}\tf{number}\n" for number in range(10))
        oid, mode, kind = git(root, "mktree", data=listing.encode()), "040000", "tree"
    commit = git(root, "commit-tree", oid, "-m", "bomb")
    git(root, "update-ref", "HEAD", commit)
    ingest(root)
    assert fetch(_STATE) == [("refused", "too_many_files")]


def test_a_bare_repository_is_read_like_its_work_tree(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    root = make_repository("work", {"a.py": make_code("a")})
    git(tmp_path, "clone", "-q", "--bare", str(root), "tool.git")
    ingest(tmp_path / "tool.git")
    assert fetch("SELECT name, kind, state FROM repositories") == [("tool", "git", "done")]


def test_what_the_repository_configures_is_not_run(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    """Attributes with a filter, a fsmonitor and an upload-pack hook in the source's own configuration."""
    root = make_repository("config", {"a.py": make_code("a"), ".gitattributes": "*.py filter=evil\n"})
    evil = f"touch {root}/executed"
    for key in ("filter.evil.smudge", "core.fsmonitor", "uploadpack.packObjectsHook", "core.sshCommand"):
        git(root, "config", key, evil)
    ingest(root)
    assert fetch(_FILES) == [("a.py", None)]
    assert not (root / "executed").exists()


def lend_by_file(lender: Path, borrower: Path) -> None:
    (borrower / ".git").rename(borrower / "old")
    (borrower / ".git").write_text(f"gitdir: {lender / '.git'}\n")


def lend_by_link(lender: Path, borrower: Path) -> None:
    (borrower / ".git").rename(borrower / "old")
    (borrower / ".git").symlink_to(lender / ".git")


def lend_by_alternates(lender: Path, borrower: Path) -> None:
    (borrower / ".git" / "objects" / "info" / "alternates").write_text(f"{lender / '.git' / 'objects'}\n")
    git(borrower, "update-ref", "HEAD", git(lender, "rev-parse", "HEAD"))


def lend_by_common_folder(lender: Path, borrower: Path) -> None:
    (borrower / ".git" / "commondir").write_text(f"{lender / '.git'}\n")


def lend_by_linked_objects(lender: Path, borrower: Path) -> None:
    for folder in (lender / ".git" / "objects").iterdir():
        here = borrower / ".git" / "objects" / folder.name
        if not here.exists():
            here.symlink_to(folder)


def lend_by_linked_refs(lender: Path, borrower: Path) -> None:
    (borrower / ".git" / "packed-refs").symlink_to(lender / ".git" / "refs" / "heads" / "main")


LOANS = [
    lend_by_file,
    lend_by_link,
    lend_by_alternates,
    lend_by_common_folder,
    lend_by_linked_objects,
    lend_by_linked_refs,
]


@pytest.mark.parametrize("lend", LOANS)
def test_a_repository_that_borrows_from_another_one_is_refused(
    lend: Callable[[Path, Path], None],
    make_repository: Callable[..., Path],
    engine: sa.Engine,
    ingest: Callable[..., None],
    fetch: Fetch,
) -> None:
    """When it is named, and again when it has been changed since."""
    secret = make_repository("secret", {"secret.py": make_code("secret")})
    root = make_repository("tool", {"a.py": make_code("a")})
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    lend(secret, root)
    with pytest.raises(SourceError, match="instead"):
        normalise_source(str(root))
    ingest()
    assert fetch(_STATE) == [("refused", "linked_git")]
    assert fetch(_FILES) == []


def test_a_broken_repository_does_not_give_its_neighbour(
    make_repository: Callable[..., Path], engine: sa.Engine, ingest: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    """Git tries tool.git when tool/.git is no repository."""
    root = make_repository("tool", {"a.py": make_code("a")})
    git(tmp_path, "clone", "-q", "--bare", str(make_repository("other", {"b.py": make_code("b")})), "tool.git")
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    (root / ".git" / "HEAD").write_text("nothing\n")
    with pytest.raises(SourceError, match="no git repository"):
        normalise_source(str(root))
    ingest()
    assert fetch(_STATE) == [("refused", "not_found")]
    assert fetch(_FILES) == []


INDEX_PACK = "fatal: fetch-pack: invalid index-pack output"
SAID = [
    ("fatal: transport 'ftp' not allowed", "protocol", True),
    (
        f"error: object 0b73: hasDotgit: contains '.git' fatal: fsck error in packed object {INDEX_PACK}",
        "corrupt",
        True,
    ),
    (f"fatal: write error: File too large {INDEX_PACK}", "clone_too_large", True),
    ("fatal: repository 'https://host/a/b/' not found", "not_found", True),
    ("fatal: unable to access 'https://host/a/b/': The requested URL returned error: 410", "not_found", True),
    ("fatal: unable to access 'https://host/a/b/': The requested URL returned error: 451", "not_found", True),
    ("fatal: unable to access 'https://host/a/b/': The requested URL returned error: 403", "no_access", True),
    ("fatal: unable to access 'https://host/a/b/': The requested URL returned error: 503", "clone_failed", False),
    ("fatal: Authentication failed for 'https://host/a/b/'", "no_access", True),
    (f"error: RPC failed; curl 18 fatal: early EOF {INDEX_PACK}", "clone_failed", False),
    (
        f"fetch-pack: unexpected disconnect while reading sideband packet fatal: early EOF {INDEX_PACK}",
        "clone_failed",
        False,
    ),
    (f"fatal: write error: No space left on device {INDEX_PACK}", "disk_full", False),
    ("fatal: could not create work tree dir 'tool': Disk quota exceeded", "disk_full", False),
    (f"remote: fatal: write error: No space left on device\n{INDEX_PACK}", "clone_failed", False),
    ("fatal: remote error: No space left on device", "clone_failed", False),
    (f"error: --shallow-file died of signal 11\nfatal: early EOF\n{INDEX_PACK}", "corrupt", True),
    ("fatal: exceeded maximum allowed tree depth", "corrupt", True),
    (f"remote: error: pack-objects died of signal 11\nfatal: early EOF\n{INDEX_PACK}", "clone_failed", False),
    (INDEX_PACK, "clone_failed", False),
    ("fatal: protocol error: bad line length character: abcd", "clone_failed", False),
    ("fatal: unable to access 'https://host/a/b/': Could not resolve host: host; not found", "clone_failed", False),
    ("fatal: unable to access 'https://host/not found/fsck error': SSL_ERROR_SYSCALL", "clone_failed", False),
]


@pytest.mark.parametrize(("said", "reason", "is_permanent"), SAID)
def test_what_may_pass_is_tried_again_and_what_may_not_is_not(said: str, reason: str, is_permanent: bool) -> None:
    failed = explain_clone(f"\n  stderr: '{said}\n'", names=("https://host/not found/fsck error", "https://host/a"))
    assert (failed.reason, failed.is_permanent) == (reason, is_permanent)


def test_a_pack_above_the_limit_is_refused_with_its_own_reason(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_repository("large", {f"{number}.bin": os.urandom(200_000) for number in range(4)})
    ingest(root, settings=SETTINGS.model_copy(update={"clone_max_bytes": 300_000}))
    assert fetch(_STATE) == [("refused", "clone_too_large")]
