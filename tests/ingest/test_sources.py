"""What an operator may name, in canonical form."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.sources import Source, SourceError, normalise_source, source_key, standard_library


@pytest.mark.parametrize(
    ("text", "source", "owner", "name", "host"),
    [
        ("https://github.com/Alice/Tool.git", "https://github.com/alice/tool", "alice", "tool", "github.com"),
        ("https://GitHub.com/alice/tool/", "https://github.com/alice/tool", "alice", "tool", "github.com"),
        ("https://github.com/alice/tool/tree/main/src", "https://github.com/alice/tool", "alice", "tool", "github.com"),
        ("https://git.example.org:443/A/b", "https://git.example.org/A/b", "A", "b", "git.example.org"),
        ("http://127.0.0.1:8000/x.git", "http://127.0.0.1:8000/x", None, "x", "127.0.0.1:8000"),
        ("https://gitlab.com/group/sub/tool", "https://gitlab.com/group/sub/tool", "sub", "tool", "gitlab.com"),
    ],
)
def test_it_writes_a_url_in_one_way(text: str, source: str, owner: str | None, name: str, host: str) -> None:
    assert normalise_source(text) == Source(source=source, kind="git", name=name, host=host, owner=owner)
    assert normalise_source(source).source == source


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/nowhere/at/all", "/nowhere/at/all: no such folder"),
        ("alice/tool", "alice/tool: no such folder"),
        ("git@github.com:alice/tool.git", "use the https:// address"),
        ("ssh://git@host/alice/tool", "use the https:// address"),
        ("ftp://host/alice/tool", "not a git URL"),
        ("ext::sh -c id", "not a git URL"),
        ("https://user:hunter2@host/a/b", "credentials do not belong"),
        ("https://host", "not the address of a repository"),
        ("https://host/a/-x", "not the address of a repository"),
        ("https://host/a/../b", "not the address of a repository"),
        ("https://host/a/b?x=1", "not the address of a repository"),
        ("https://host/a/b%0a", "not the address of a repository"),
        ("https://host:99999/a/b", "Port out of range"),
        ("http://[::1/a/b", "Invalid IPv6 URL"),
        ("https://ho\x1bst/a/b", r"https://ho\x1bst/a/b: not a git URL"),
        ("file://host/srv", "use file:///path"),
        ("", "an empty source; name an existing folder"),
        ("~nobody-has-this-name/a", "home directory; name an existing folder"),
        ("a" * 5000, "File name too long; name an existing folder"),
        ("/nowhere\x1b[31m", r"/nowhere\x1b[31m: no such folder"),
    ],
)
def test_it_refuses_what_it_cannot_read_and_names_it(text: str, says: str) -> None:
    with pytest.raises(SourceError) as refusal:
        normalise_source(text)
    assert says in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_it_tells_folders_work_trees_and_bare_repositories_apart(
    make_folder: Callable[..., Path], make_repository: Callable[..., Path], tmp_path: Path
) -> None:
    folder, repository = make_folder("plain", {"a.py": "x"}), make_repository("tool", {"a.py": "x"})
    repository.rename(tmp_path / "folder")
    (tmp_path / "folder" / ".git").rename(tmp_path / "bare.git")
    assert (normalise_source(str(folder)).kind, normalise_source(str(folder)).name) == ("folder", "plain")
    assert (normalise_source(str(tmp_path / "bare.git")).kind, normalise_source(str(tmp_path / "bare.git")).name) == (
        "git",
        "bare",
    )
    assert normalise_source(f"file://{tmp_path}/bare.git") == normalise_source(f"{tmp_path}/folder/../bare.git/")


def test_it_refuses_a_single_file(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"a\.py: not a folder; name the folder"):
        normalise_source(str(make_folder("plain", {"a.py": "x"}) / "a.py"))


def test_the_standard_library_is_a_source_with_the_same_key_on_every_machine() -> None:
    library = standard_library()
    assert normalise_source(library.source) == library
    assert (library.kind, library.licence) == ("folder", "PSF-2.0")
    assert source_key(library.source) == library.name
    assert source_key("https://github.com/alice/tool") == "github.com/alice/tool"
    assert source_key("/srv/code") == "/srv/code"
