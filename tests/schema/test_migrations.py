import threading

import pytest
import sqlalchemy as sa

from schema.database import RevisionMismatch, check_revision, create_engine, upgrade
from schema.tables import Base

CATALOGS = {
    "columns": """
        SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, is_identity,
            identity_generation
        FROM information_schema.columns WHERE table_schema = 'public'
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
}


@pytest.fixture
def empty_engine(empty_database):
    engine = create_engine(empty_database(), application_name="tests")
    yield engine
    engine.dispose()


def read_catalog(engine, query):
    with engine.connect() as conn:
        rows = {tuple(row) for row in conn.execute(sa.text(query))}
    return {row for row in rows if "alembic_version" not in row}


@pytest.mark.parametrize("catalog", CATALOGS)
def test_the_migrations_build_exactly_the_tables(catalog, engine, empty_engine):
    Base.metadata.create_all(empty_engine)
    assert read_catalog(engine, CATALOGS[catalog]) == read_catalog(empty_engine, CATALOGS[catalog])


def test_the_comparison_sees_indexes_with_their_predicates(engine):
    definitions = {name: definition for _, name, definition in read_catalog(engine, CATALOGS["indexes"])}
    assert "INCLUDE (score, num_chars, item_kind, item_id) WHERE" in definitions["ix_training_queue_pending"]
    assert "released_at IS NULL" in definitions["uq_training_run_items_consumed"]


def test_an_upgrade_reports_what_it_applied_and_then_nothing(empty_engine):
    assert upgrade(empty_engine)[:1] == ["0001"]
    assert upgrade(empty_engine) == []
    check_revision(empty_engine)


def test_two_upgrades_at_once_apply_each_revision_once(empty_engine):
    applied = []
    both = [threading.Thread(target=lambda: applied.append(upgrade(empty_engine))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    first, second = sorted(applied, key=len)
    assert (first, second[:1]) == ([], ["0001"])


def test_an_older_database_is_refused_with_the_command_that_upgrades_it(empty_engine):
    with pytest.raises(RevisionMismatch, match=r"at revision none, this code needs .*run `codelupe db upgrade`"):
        check_revision(empty_engine)


@pytest.mark.parametrize("call", [check_revision, upgrade])
def test_a_newer_database_is_refused_with_the_advice_to_install_the_newer_code(call, engine):
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RevisionMismatch, match=r"revision 9999, newer .*install the newer codelupe"):
        call(engine)


def test_a_failed_upgrade_leaves_nothing_behind(empty_engine):
    with empty_engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE versions (in_the_way int)"))
    with pytest.raises(sa.exc.ProgrammingError, match="already exists"):
        upgrade(empty_engine)
    with empty_engine.connect() as conn:
        assert sa.inspect(conn).get_table_names() == ["versions"]
