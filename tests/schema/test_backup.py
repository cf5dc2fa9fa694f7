"""A backup holds one moment of every table; a restore brings all of it back, or changes nothing."""

import hashlib
import io
import json
import re
import shutil
import struct
import threading
import zipfile
from types import SimpleNamespace

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.dialects.postgresql import TSVECTOR

from daemon.backups import db, remove_old
from monitoring.config import MonitoringSettings
from schema.audit import audit
from schema.backup import make_backup
from schema.backup_file import BackupError, DamagedBackup, open_backup
from schema.backup_restore import NotEmpty, restore_backup
from schema.config import DatabaseSettings
from schema.database import check_revision, create_engine
from schema.lines import open_line
from schema.opt_outs import add_opt_outs, fetch_opt_outs
from schema.tables import Base
from schema.versions import promote, save_version
from tests.builders import add_files, add_repository, hold_line, open_run
from tests.waiting import DEADLINE_S

NAMES = [table.name for table in Base.metadata.sorted_tables]
# One row of everything that the builders do not make; text that COPY has to escape.
FILL_OTHERS = """
    INSERT INTO opt_outs (pattern) VALUES ('some\\body/* \t\n');
    INSERT INTO chores (name, due_at) VALUES ('prune', now());
"""


def ignore(*_):
    pass


def fill(engine):
    """Put rows into every table, through the real paths where there is one."""
    with engine.begin() as conn:
        line = open_line(conn, name="qwen", base_model="base")
        add_files(conn, add_repository(conn), 5)
        lease = hold_line(conn)
        run = open_run(conn, line.id, lease)
        save_version(
            conn, line_id=1, number=1, run_id=run.id, parent=None, manifest_digest="d", num_bytes=1, lease=lease
        )
        promote(conn, line_id=1, version=1, expected=None, actor="somebody", reason="it is better")
        conn.exec_driver_sql(FILL_OTHERS)
        for table in Base.metadata.sorted_tables:
            if not count(conn, table.name):
                conn.execute(sa.insert(table).values(invent(table)))


def invent(table):
    """Return a row of plain values that the table's constraints allow."""
    checks = [str(one.sqltext) for one in table.constraints if isinstance(one, sa.CheckConstraint)]
    allowed = dict(found.groups() for check in checks if (found := re.match(r"(\w+) IN \('(\w+)'", check)))
    needed = [one for one in table.columns if not (one.identity or one.nullable or one.server_default is not None)]
    return {column.name: allowed.get(column.name) or invent_value(column) for column in needed}


def invent_value(column):
    if column.foreign_keys:
        return 1
    if isinstance(column.type, TSVECTOR):
        return "'a'"
    if isinstance(column.type, sa.JSON):
        return {"a": [1, None]}
    kinds = {str: "a \\ 'text'\t\n\N{SNOWMAN}", int: 1, float: 0.1, bool: True, list: []}
    return kinds.get(column.type.python_type, sa.func.now())


def count(conn, name):
    return conn.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one()


def read(engine):
    """Return every row of every table."""
    with engine.connect() as conn:
        return {name: sorted(map(repr, conn.execute(sa.text(f"SELECT * FROM {name}")))) for name in NAMES}


@pytest.fixture
def another(empty_database):
    """Call it for an engine on a new database without tables."""
    engines = []

    def make():
        engines.append(create_engine(empty_database(), application_name="tests"))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="module")
def source(empty_database, migrated_template):
    """An engine on a database with rows in every table."""
    engine = create_engine(empty_database(migrated_template), application_name="tests")
    fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """A backup of it."""
    return make_backup(source, tmp_path_factory.mktemp("backups") / "backup.zip", show=ignore)


@pytest.fixture
def file(made, tmp_path):
    """A copy of the backup."""
    return shutil.copy(made.file, tmp_path / "backup.zip")


@pytest.fixture
def occupied(engine):
    """An engine on a database that somebody uses."""
    with engine.begin() as conn:
        add_repository(conn, "/of/somebody/else")
    return engine


def test_every_row_of_every_table_comes_back_and_numbers_go_on(file, source, another):
    target = another()

    restored = restore_backup(target, file, replace=False, show=ignore)

    rows = read(source)
    assert [name for name, found in rows.items() if not found] == []
    assert read(target) == rows
    assert (restored.applied, restored.report.rows_unaccounted) == ([], 0)
    check_revision(target)
    with source.connect() as old, target.begin() as new:
        assert audit(new) == audit(old)
        highest = old.execute(sa.text("SELECT max(id) FROM repositories")).scalar_one()
        assert add_repository(new) > highest


def test_its_manifest_says_what_is_in_it(made, source):
    with source.connect() as conn:
        assert {table.name: table.num_rows for table in made.manifest.tables} == {
            name: count(conn, name) for name in NAMES
        }
    assert made.sha256 == hashlib.sha256(made.file.read_bytes()).hexdigest()
    assert (made.file.stat().st_size, made.file.stat().st_mode & 0o777) == (made.num_bytes, 0o600)
    assert [path.name for path in made.file.parent.iterdir()] == ["backup.zip"]


def test_what_is_written_meanwhile_is_in_none_of_its_tables(engine, another, tmp_path):
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        repository = add_repository(conn)
        add_files(conn, repository, 3)
    before = read(engine)
    tables = []

    def write(table, *_):
        if not tables:  # the first of them is read, the others are not
            with engine.begin() as conn:
                add_files(conn, repository, 1)
                conn.execute(sa.text("DELETE FROM training_queue WHERE item_id = 1"))
        tables.append(table)

    made = make_backup(engine, tmp_path / "backup.zip", show=write)

    assert {"processed_files", "training_queue"} <= set(tables[1:])
    target = another()
    restored = restore_backup(target, made.file, replace=False, show=ignore)
    assert read(target) == before
    assert (restored.report.rows_total, restored.report.rows_unaccounted) == (3, 0)
    with target.begin() as conn:
        assert len(add_files(conn, repository, 1)) == 1  # with a number that was not given out before


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    """Change a byte in the middle of a stream."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo("tables/processed_files.copy")
    name, extra = struct.unpack("<HH", data[member.header_offset + 26 : member.header_offset + 30])
    place = member.header_offset + 30 + name + extra + member.compress_size // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"", lambda _: b"no backup at all"])
def test_a_file_that_is_not_what_was_written_is_refused_and_changes_nothing(damage, file, occupied):
    before = read(occupied)
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(DamagedBackup, match="is no whole backup"):
        restore_backup(occupied, file, replace=True, show=ignore)

    assert read(occupied) == before


def rewrite(file, change):
    """Write a backup anew whose checksums hold, with what `change` does to its members."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    change(manifest, members)
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def forget_a_table(manifest, _):
    manifest["tables"] = [table for table in manifest["tables"] if table["name"] != "chores"]


def exchange_a_stream(_, members):
    members["tables/chores.copy"] = b""


def lose_a_stream(_, members):
    del members["tables/chores.copy"]


def name_a_newer_revision(manifest, _):
    manifest["revision"] = "9999"


def name_another_format(manifest, _):
    manifest["format_version"] = 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (forget_a_table, "its tables are not those of its revision: chores"),
        (exchange_a_stream, "tables/chores.copy is not what its manifest lists"),
        (lose_a_stream, "tables/chores.copy"),
        (name_a_newer_revision, "revision 9999, newer than this code knows: install the newer codelupe"),
        (name_another_format, "another format: restore it with the codelupe that made it"),
    ],
)
def test_a_backup_that_does_not_fit_is_refused_with_its_fault(change, words, file, another):
    rewrite(file, change)
    target = another()

    with pytest.raises(BackupError, match=words):
        restore_backup(target, file, replace=False, show=ignore)

    assert sa.inspect(target).get_table_names() == []


def test_a_database_with_rows_is_kept_unless_they_may_go(file, source, occupied):
    with pytest.raises(NotEmpty, match=r"holds rows \(repositories 1\): .*--replace"):
        restore_backup(occupied, file, replace=False, show=ignore)

    restore_backup(occupied, file, replace=True, show=ignore)
    assert read(occupied)["repositories"] == read(source)["repositories"]


def test_tables_without_rows_are_in_nobodys_way(file, engine):
    restore_backup(engine, file, replace=False, show=ignore)

    assert read(engine)["chores"] != []


def test_an_opt_out_outlives_a_backup_that_does_not_know_it(file, engine):
    with engine.begin() as conn:
        add_opt_outs(conn, ["later/*"])

    restored = restore_backup(engine, file, replace=True, show=ignore)

    assert restored.kept_opt_outs == ["later/*"]
    with engine.connect() as conn:
        assert "later/*" in fetch_opt_outs(conn)


def test_nothing_is_restored_under_a_service_that_runs(file, engine, database_url, monkeypatch):
    monkeypatch.setattr("schema.backup_restore.LEAVING_S", 0.0)
    with (
        psycopg.connect(database_url.replace("+psycopg", ""), application_name="codelupe ingest"),
        pytest.raises(BackupError, match=r"codelupe is at work on this database: codelupe ingest \(backend \d+\)"),
    ):
        restore_backup(engine, file, replace=True, show=ignore)


def test_who_is_just_leaving_is_waited_for(file, engine, database_url, monkeypatch):
    monkeypatch.setattr("schema.backup_restore.LEAVING_S", DEADLINE_S)
    last = psycopg.connect(database_url.replace("+psycopg", ""), application_name="codelupe db")
    leaving = threading.Timer(0.2, last.close)
    leaving.start()

    restore_backup(engine, file, replace=True, show=ignore)

    leaving.join()
    assert read(engine)["chores"] != []


def test_a_file_that_is_there_is_never_overwritten(engine, tmp_path):
    file = tmp_path / "backup.zip"
    file.write_text("something of mine")

    with pytest.raises(BackupError, match=r"backup\.zip is there already"):
        make_backup(engine, file, show=ignore)

    assert file.read_text() == "something of mine"


def test_a_backup_that_breaks_off_leaves_nothing(engine, tmp_path):
    def break_off(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_backup(engine, tmp_path / "backup.zip", show=break_off)

    assert list(tmp_path.iterdir()) == []


def test_a_database_without_our_tables_is_nothing_to_back_up(another, tmp_path):
    with pytest.raises(BackupError, match="nothing to back up"):
        make_backup(another(), tmp_path / "backup.zip", show=ignore)


def test_the_newest_are_kept_and_what_is_not_ours_too(tmp_path):
    days = [f"codelupe-2026110{day}T000000.zip" for day in range(1, 6)]
    for name in [*days, "codelupe.zip", "notes.txt"]:
        (tmp_path / name).touch()

    removed = remove_old(tmp_path, keep=2)

    assert [path.name for path in removed] == days[:3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*days[3:], "codelupe.zip", "notes.txt"]


# The commands.


@pytest.fixture
def settings(tmp_path, database_url):
    return SimpleNamespace(
        home=tmp_path / "home",
        database=DatabaseSettings(database_url=database_url),
        monitoring=MonitoringSettings(),
    )


def invoke(settings, *words, **values):
    return CliRunner().invoke(db, words, obj=settings, catch_exceptions=False, **values)


def test_a_backup_and_its_restore_by_command(settings, engine, tmp_path):
    fill(engine)
    versions = settings.home / "models" / "qwen" / "versions"
    (versions / "0002").mkdir(parents=True)

    made = json.loads(invoke(settings, "backup", "--keep", "1", "--json").stdout)
    assert (made["tables"]["processed_files"], made["removed"]) == (5, [])
    with open_backup(settings.home / "backups" / made["file"].rpartition("/")[2]) as opened:
        assert opened.manifest.revision == made["revision"]

    refused = invoke(settings, "restore", made["file"], "--replace", input="n\n")
    assert (refused.exit_code, "Replace all rows by those of" in refused.stderr) == (1, True)
    done = invoke(settings, "restore", made["file"], "--replace", input="y\n")
    assert done.exit_code == 0
    assert "unaccounted  0" in done.stdout
    assert "the current version is not on this machine: copy its folder here, or `codelupe models" in done.stdout
    assert "not on disk: 0001" in done.stdout
    assert "on disk, newer than the backup: 0002" in done.stdout


def test_rows_that_do_not_add_up_are_restored_and_told(settings, engine, tmp_path):
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        add_files(conn, add_repository(conn), 1)
        conn.execute(sa.text("DELETE FROM training_queue"))
    file = str(tmp_path / "backup.zip")
    invoke(settings, "backup", file)

    done = invoke(settings, "restore", file, "--replace", "--yes", "--json")

    assert (done.exit_code, json.loads(done.stdout)["audit"]["problems"]) == (1, {"not_queued": 1})


def test_only_a_folder_of_backups_is_thinned_out(settings, tmp_path):
    refused = invoke(settings, "backup", str(tmp_path / "one.zip"), "--keep", "3")

    assert (refused.exit_code, "--keep goes with a folder" in refused.output) == (2, True)
