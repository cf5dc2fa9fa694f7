"""The licence policy: what the crawler found needs an allowed licence, what the operator names is taken as it is."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from ingest.config import IngestSettings
from ingest.worker import work
from schema.repositories import add_source
from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
Make = Callable[..., Path]
GPL = "# This is free software under the terms of the GNU General Public License, version 3.\n"
FILES = {
    "LICENSE": "Released under the MIT License.",
    "a.py": make_code("a"),
    "own.py": GPL + make_code("own"),
    "choice.py": "# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-only\n" + make_code("choice"),
    "copied/COPYING": GPL,
    "copied/deep/b.py": make_code("b"),
    "copied/deep/c.py": "# SPDX-License-Identifier: ISC\n" + make_code("c"),
}
_REPOSITORIES = "SELECT name, state, reason, licence, licence_evidence FROM repositories ORDER BY name"


@pytest.fixture
def visit(engine: sa.Engine, tmp_path: Path) -> Callable[..., None]:
    """Call it with folders by origin, and what GitHub says of their licence: they are queued and visited."""

    def run(*roots: Path, origin: str = "crawler", api: str | None = None, settings: IngestSettings = SETTINGS) -> None:
        with engine.begin() as conn:
            for root in roots:
                added, _ = add_source(conn, source=str(root), kind="folder", origin=origin, name=root.name)
                conn.execute(
                    sa.text("UPDATE repositories SET api_licence = :api WHERE id = :id"), {"api": api, "id": added}
                )
        work(engine, settings, home=tmp_path / "home", stop=threading.Event(), once=True)

    return run


def test_a_found_file_is_kept_by_its_own_licence_else_by_that_of_the_nearest_folder(
    visit: Callable[..., None], make_folder: Make, fetch: Fetch
) -> None:
    visit(make_folder("found", FILES), api="MIT")
    assert fetch("SELECT file_path, licence, score_detail->>'licence' FROM processed_files ORDER BY 1") == [
        ("a.py", "MIT", "LICENSE: MIT"),
        ("choice.py", "Apache-2.0 OR GPL-3.0-only", "SPDX header: Apache-2.0 OR GPL-3.0-only"),
        ("copied/deep/c.py", "ISC", "SPDX header: ISC"),
    ]
    assert fetch("SELECT file_path, reason, detail FROM refused_files ORDER BY 1") == [
        ("copied/deep/b.py", "licence", "GPL-3.0-only (copied/COPYING: GPL-3.0-only)"),
        ("own.py", "licence", "GPL-3.0-only (notice: GPL-3.0-only)"),
    ]
    assert fetch(_REPOSITORIES) == [("found", "done", None, "MIT", "LICENSE: MIT")]


def test_a_file_that_its_folders_licence_refused_is_looked_at_again(
    visit: Callable[..., None], make_folder: Make, fetch: Fetch
) -> None:
    root = make_folder("found", FILES)
    visit(root)
    (root / "copied/COPYING").write_text(FILES["LICENSE"])
    visit(root)
    assert fetch("SELECT licence FROM processed_files WHERE file_path = 'copied/deep/b.py'") == [("MIT",)]
    assert fetch("SELECT file_path FROM refused_files") == [("own.py",)]


def test_without_an_allowed_licence_a_found_repository_is_refused_with_the_evidence(
    visit: Callable[..., None], make_folder: Make, fetch: Fetch
) -> None:
    code = {"a.py": make_code("a")}
    visit(make_folder("copyleft", code | {"COPYING": GPL}), make_folder("none", code))
    visit(make_folder("unread", {"a.py": make_code("unread")}), api="GPL-2.0")
    visit(make_folder("known", {"a.py": make_code("known")}), api="MIT")
    assert fetch(_REPOSITORIES) == [
        ("copyleft", "refused", "licence", "GPL-3.0-only", "COPYING: GPL-3.0-only"),
        ("known", "done", None, "MIT", "GitHub: MIT"),
        ("none", "refused", "licence", None, "no licence file"),
        ("unread", "refused", "licence", "GPL-2.0", "GitHub: GPL-2.0"),
    ]
    assert fetch("SELECT licence, count(*) FROM processed_files GROUP BY 1") == [("MIT", 1)]
    # GitHub's word was enough: nothing of it was read.
    assert fetch(
        "SELECT r.name, f.detail FROM refused_files f JOIN repositories r ON r.id = f.repository_id ORDER BY 1"
    ) == [("copyleft", "GPL-3.0-only (COPYING: GPL-3.0-only)"), ("none", "no licence (no licence file)")]


def test_what_the_operator_names_is_taken_and_its_licence_recorded(
    visit: Callable[..., None], make_folder: Make, fetch: Fetch
) -> None:
    root = make_folder("named", {"a.py": make_code("a"), "own.py": GPL + make_code("own")})
    visit(root, origin="operator")
    assert fetch("SELECT file_path, licence FROM processed_files ORDER BY 1") == [
        ("a.py", None),
        ("own.py", "GPL-3.0-only"),
    ]
    (root / "LICENSE").write_text("Released under the MIT License.")
    visit(root, origin="operator")
    assert fetch(_REPOSITORIES) == [("named", "done", None, "MIT", "LICENSE: MIT")]
    (root / "LICENSE").write_text(GPL)
    visit(root, origin="operator")
    assert fetch(_REPOSITORIES) == [("named", "done", None, "GPL-3.0-only", "LICENSE: GPL-3.0-only")]


def test_the_policy_can_be_switched_off_or_given_another_list(
    visit: Callable[..., None], make_folder: Make, fetch: Fetch
) -> None:
    root = make_folder("found", {"LICENSE": GPL, "a.py": make_code("a")})
    visit(root, settings=SETTINGS.model_copy(update={"allowed_licences": ("GPL-3.0-only",)}))
    (root / "b.py").write_text("# SPDX-License-Identifier: LicenseRef-mine\n" + make_code("b"))
    visit(root, settings=SETTINGS.model_copy(update={"licence_policy": "any"}))
    assert fetch("SELECT file_path, licence FROM processed_files ORDER BY 1") == [
        ("a.py", "GPL-3.0-only"),
        ("b.py", "LicenseRef-mine"),
    ]


def test_a_licence_that_spdx_does_not_know_is_an_error_of_the_configuration() -> None:
    assert IngestSettings(allowed_licences=("MIT", "GPL-3.0-only")).allowed_licences == ("MIT", "GPL-3.0-only")
    with pytest.raises(ValidationError, match="Apache-2: no SPDX id; see https"):
        IngestSettings(allowed_licences=("MIT", "Apache-2"))
