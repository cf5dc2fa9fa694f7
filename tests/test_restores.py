"""A database that was set back to before what lies on disk: the next round follows it, and nothing is lost."""

from daemon.backups import compare_lines
from daemon.paths import LinePaths
from daemon.publish import verify_folder
from schema.backup import make_backup
from schema.backup_restore import restore_backup
from schema.lines import fetch_line, open_line
from schema.versions import fetch_version
from tests.processes import QUICK
from tests.rows import audit_of, opened, store_rows


def show_nothing(*_):
    pass


def test_a_version_newer_than_the_backup_is_set_aside_when_its_number_comes_round(start, database_url, tmp_path):
    paths = LinePaths(tmp_path / "home", "tiny")
    store_rows(database_url)
    with opened(database_url) as engine:
        with engine.begin() as conn:
            open_line(conn, name="tiny", base_model=QUICK["base_model"])
        backup = make_backup(engine, tmp_path / "backup.zip", show=show_nothing)
    assert start("daemon", "run", "--once", database_url=database_url).wait_end() == 0
    newer = verify_folder(paths.version(1))

    with opened(database_url) as engine:
        assert restore_backup(engine, backup.file, replace=True, show=show_nothing).report.rows_unaccounted == 0
        with engine.connect() as conn:
            (found,) = compare_lines(conn, tmp_path / "home")
    assert (found.current, found.missing, found.other, found.unknown) == (None, [], [], [1])
    store_rows(database_url, first=100)
    assert start("daemon", "run", "--once", database_url=database_url).wait_end() == 0

    with opened(database_url) as engine, engine.connect() as conn:
        row = fetch_version(conn, fetch_line(conn, "tiny").id, 1)
        assert compare_lines(conn, tmp_path / "home")[0].is_current_whole
    assert verify_folder(paths.current, row["manifest_digest"]) != newer
    (aside,) = paths.versions.glob("0001.aside-*")
    assert verify_folder(aside) == newer
    assert audit_of(database_url).by_state["trained"] == 60
