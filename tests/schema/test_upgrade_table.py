"""From every earlier revision, with rows: the upgrade keeps and accounts for all of them, a backup of it too."""

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.backup import make_backup
from schema.backup_restore import restore_backup
from schema.database import _scripts, check_revision, create_engine, migrate, upgrade
from schema.lines import open_line
from schema.tables import Base
from tests.schema.test_filled_upgrade import FILL, FILLED, read

REVISIONS = sorted(script.revision for script in _scripts().walk_revisions())
FILES = 600


@pytest.fixture
def fill_at(empty_database):
    """Call it with a revision for an engine on a database of that revision with rows."""
    engines = []

    def make(revision, sql=FILL):
        engines.append(create_engine(empty_database(), application_name="tests"))
        with engines[-1].begin() as conn:
            migrate(conn, revision)
            conn.execute(sa.text(sql))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def columns_of(engine, table):
    """Return the columns of a table that are there now and will be."""
    return [f'"{one["name"]}"' for one in sa.inspect(engine).get_columns(table) if one["name"] in kept(table)]


def kept(table):
    return Base.metadata.tables[table].columns


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_rows_of_every_revision_are_kept_and_accounted_for(revision, fill_at):
    filled = fill_at(revision)
    names = {table: columns_of(filled, table) for table in FILLED}
    before = read(filled, names)

    assert upgrade(filled) == REVISIONS[REVISIONS.index(revision) + 1 :]

    assert read(filled, names) == before
    with filled.begin() as conn:
        open_line(conn, name="qwen", base_model="base", max_owner_rows=99)
        report = audit(conn)
    assert (report.rows_total, report.problems) == (FILES, {})


def test_a_backup_of_the_first_revision_is_restored_and_upgraded(fill_at, tmp_path):
    file = make_backup(fill_at("0001"), tmp_path / "backup.zip", show=lambda *_: None).file
    target = fill_at("0001", "SELECT 1")

    restored = restore_backup(target, file, replace=False, show=lambda *_: None)

    check_revision(target)
    assert (restored.manifest.revision, restored.applied) == ("0001", REVISIONS[1:])
    assert (restored.report.rows_total, restored.report.problems) == (FILES, {})


def test_a_backup_knows_the_tables_of_every_revision(fill_at):
    filled = fill_at("0001", "SELECT 1")
    for revision in REVISIONS:
        with filled.begin() as conn:
            migrate(conn, revision)
        # A table that a later revision drops must go on being backed up at the earlier ones.
        assert set(sa.inspect(filled).get_table_names()) - set(Base.metadata.tables) == {"alembic_version"}
