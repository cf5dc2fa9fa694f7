"""Local folders, hostile ones among them, through the real child into a real database."""

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
_FILES = "SELECT file_path, excluded_reason FROM processed_files ORDER BY file_path, id"
_REFUSED = "SELECT file_path, reason FROM refused_files ORDER BY file_path"


def test_it_stores_what_is_accepted_and_lists_what_is_not(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    code = make_code("a")
    root = make_folder(
        "plain",
        {
            "LICENSE": "Released under the MIT License.",
            "src/a.py": code,
            "src/crlf.py": b"\xef\xbb\xbf" + make_code("b").replace("\n", "\r\n").encode(),
            "bin/tool": "#!/usr/bin/env python3\n" + make_code("c"),
            "data/binary.py": b"x = 1\0" * 20,
            "data/latin.py": b"# \xe9\n" * 20,
            "data/huge.py": b"x = 1\n" * 60_000,
            "data/deep.py": b"x = " + b"[" * 9_000 + b"]" * 9_000 + b"\n",
            "node_modules/left/pad.js": "var x = 1;\n" * 9,
            "README.md": "# read me\n" * 9,
            ".git-is-no-folder.py": "",
        },
    )
    (root / "bin" / "tool").chmod(0o755)
    ingest(root)
    rows = fetch(
        "SELECT file_path, content, language, licence, num_chars, num_lines, owner FROM processed_files ORDER BY 1"
    )
    assert [row[0] for row in rows] == ["bin/tool", "src/a.py", "src/crlf.py"]
    assert rows[1][1:6] == (code, "python", "MIT", len(code), code.count("\n"))
    assert rows[2][1] == make_code("b")
    assert rows[1][6] == "plain"
    assert fetch(_REFUSED) == [
        (".git-is-no-folder.py", "too_short"),
        ("data/binary.py", "binary"),
        ("data/deep.py", "minified"),
        ("data/huge.py", "too_large"),
        ("data/latin.py", "encoding"),
        ("node_modules/", "vendored"),
    ]
    assert fetch(
        "SELECT state, file_count, licence, licence_evidence, unit_level, refusals->>'language' FROM repositories"
    ) == [("done", 3, "MIT", "LICENSE: MIT", "top", "2")]


def test_it_follows_no_link_and_opens_no_device(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    secret = make_folder("outside", {"secret.py": make_code("secret")})
    root = make_folder("links", {"a.py": make_code("a"), "below/b.py": make_code("b")})
    (root / "file_link.py").symlink_to(secret / "secret.py")
    (root / "folder_link").symlink_to(secret)
    (root / "below" / "loop").symlink_to(root)
    (root / "below" / "itself.py").symlink_to("itself.py")
    os.mkfifo(root / "pipe.py")
    (tmp_path / "home").mkdir()
    ingest(root)
    assert fetch(_FILES) == [("a.py", None), ("below/b.py", None)]
    assert fetch(_REFUSED) == [("below/itself.py", "symlink"), ("file_link.py", "symlink"), ("pipe.py", "special")]


def test_a_path_that_is_no_utf8_costs_its_file_alone(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("paths", {"a.py": make_code("a")})
    Path(os.fsdecode(os.fsencode(root) + b"/b\xff.py")).write_text(make_code("b"))
    ingest(root)
    assert fetch(_FILES) == [("a.py", None)]
    assert fetch(_REFUSED) == [("b\\xff.py", "path_encoding")]


def test_a_virtual_environment_is_known_by_its_configuration(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    ingest(
        make_folder(
            "tool",
            {"env/pyvenv.cfg": "home = /usr\n", "env/bin/a.py": make_code("a"), "venv/__init__.py": make_code("b")},
        )
    )
    assert fetch(_FILES) == [("venv/__init__.py", None)]
    assert fetch(_REFUSED) == [("env/", "vendored")]


def test_a_package_about_pods_is_read_and_the_folder_of_cocoapods_is_not(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    ingest(make_folder("tool", {"k8s/pods/a.py": make_code("a"), "ios/Pods/b.py": make_code("b")}))
    assert fetch(_FILES) == [("k8s/pods/a.py", None)]
    assert fetch(_REFUSED) == [("ios/Pods/", "vendored")]


def test_a_second_visit_adds_nothing_and_a_change_adds_itself(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("again", {"a.py": make_code("a"), "b.py": make_code("b"), "c.py": make_code("c")})
    ingest(root)
    before = fetch("SELECT * FROM processed_files ORDER BY id")
    ingest(root)
    assert fetch("SELECT * FROM processed_files ORDER BY id") == before
    make_folder("again", {"b.py": make_code("better")})
    (root / "c.py").unlink()
    ingest(root)
    assert fetch(_FILES) == [("a.py", None), ("b.py", "superseded"), ("b.py", None), ("c.py", "vanished")]
    placed = fetch("SELECT unit, split FROM processed_files WHERE file_path = 'b.py' ORDER BY id")
    assert placed[0] == placed[1]
    make_folder("again", {"c.py": make_code("c")})
    ingest(root)
    assert fetch(_FILES)[-1] == ("c.py", None)


def test_a_file_that_becomes_unacceptable_leaves(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("worse", {"a.py": make_code("a"), "b.py": make_code("b")})
    ingest(root)
    make_folder("worse", {"b.py": b"\0" * 100})
    ingest(root)
    assert fetch(_FILES) == [("a.py", None), ("b.py", "superseded")]
    assert fetch(_REFUSED) == [("b.py", "binary")]


def test_a_script_without_extension_that_is_refused_now_leaves(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    """One is binary now, one is in another language, one is not executable any more."""
    names = ("binary", "kept", "other", "plain")
    root = make_folder("scripts", {name: "#!/usr/bin/env python3\n" + make_code(name) for name in names})
    for name in names:
        (root / name).chmod(0o755)
    ingest(root)
    assert fetch(_FILES) == [(name, None) for name in names]
    make_folder("scripts", {"binary": b"#!/usr/bin/env python3\n" + b"\0" * 99, "other": "#!/bin/sh\n" + "ls\n" * 99})
    (root / "plain").chmod(0o644)
    ingest(root)
    gone = {"binary": "superseded", "kept": None, "other": "superseded", "plain": "superseded"}
    assert fetch(_FILES) == list(gone.items())
    assert fetch(_REFUSED) == [("binary", "binary"), ("other", "language"), ("plain", "language")]


@pytest.mark.parametrize("files", [{}, {"README.md": "hello"}, {"a.py": "x"}])
def test_a_folder_without_accepted_files_is_refused(
    files: dict[str, str], make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    ingest(make_folder("empty", files))
    assert fetch("SELECT state, reason FROM repositories") == [("refused", "nothing_accepted")]


def test_a_folder_with_too_many_files_is_refused(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("many", {f"{number}.py": make_code(f"n{number}") for number in range(12)})
    ingest(root, settings=SETTINGS.model_copy(update={"max_entries": 10}))
    assert fetch("SELECT state, reason FROM repositories") == [("refused", "too_many_files")]
    assert fetch(_FILES) == []


def test_a_split_unit_is_decided_once_and_kept(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("units", {f"p{number}/m.py": make_code(f"m{number}") for number in range(4)})
    ingest(root)
    assert fetch("SELECT unit_level FROM repositories") == [("top",)]
    assert fetch("SELECT unit FROM processed_files ORDER BY 1")[0] == (f"{root}:p0",)
    make_folder("units", {f"p0/{number}/m.py": make_code(f"deep{number}") for number in range(9)})
    ingest(root, settings=SETTINGS.model_copy(update={"min_units": 1}))
    assert fetch("SELECT unit_level FROM repositories") == [("top",)]
    assert fetch("SELECT count(DISTINCT unit), count(DISTINCT split) FROM processed_files WHERE file_path LIKE 'p0/%'")[
        0
    ] == (1, 1)


def test_the_standard_library_comes_in_without_its_tests(ingest: Callable[..., None], fetch: Fetch) -> None:
    """On a part of it: packages that carry tests, and the modules beside them."""
    root = Path(sysconfig.get_path("stdlib"))
    assert (root / "json").is_dir()
    ingest(root / "json", root / "wsgiref", root / "ctypes")
    paths = [str(row[0]) for row in fetch("SELECT file_path FROM processed_files")]
    assert "util.py" in paths
    assert "decoder.py" in paths
    assert not any("test/" in path or path.startswith("test_") for path in paths)
