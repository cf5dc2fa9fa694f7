import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from schema.commands import audit, db, open_engine
from schema.config import DatabaseSettings
from schema.database import RevisionMismatch, check_revision, create_engine, is_outage
from schema.embedded import server_status
from schema.lines import open_line
from tests.builders import add_files, add_repository


@dataclass(frozen=True)
class Settings:
    home: Path
    database: DatabaseSettings


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(tmp_path, DatabaseSettings(database_url=database_url))


def invoke(command, settings, *arguments):
    return CliRunner().invoke(command, arguments, obj=settings)


def test_the_embedded_database_is_started_migrated_and_stopped(tmp_path):
    settings = Settings(tmp_path, DatabaseSettings())
    assert "`codelupe db start` starts it" in invoke(db, settings, "url").output
    try:
        started = invoke(db, settings, "start")
        assert started.exit_code == 0, started.output
        assert invoke(db, settings, "url").stdout == started.stdout
        engine = create_engine(started.stdout.strip(), application_name="tests")
        check_revision(engine)
        engine.dispose()
        assert "up to date" in invoke(db, settings, "upgrade").output
    finally:
        stopped = invoke(db, settings, "stop")
    assert stopped.output == "stopped\n"
    assert server_status(tmp_path) is None
    assert invoke(db, settings, "stop").output == "was not running\n"


def test_another_server_is_neither_started_nor_stopped(settings):
    for command in ("start", "stop"):
        result = invoke(db, settings, command)
        assert (result.exit_code, "not codelupe's to start or stop" in result.output) == (1, True)


def test_the_url_is_one_that_psql_understands(settings):
    assert invoke(db, settings, "url").stdout.startswith("postgresql://")


def test_another_servers_database_is_upgraded_only_on_request(tmp_path, empty_database):
    settings = Settings(tmp_path, DatabaseSettings(database_url=empty_database()))
    with pytest.raises(RevisionMismatch, match="codelupe db upgrade"), open_engine(settings):
        pass
    assert "applied 0001" in invoke(db, settings, "upgrade").output
    with open_engine(settings) as engine, engine.connect() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM lines")).scalar_one() == 0


def test_an_audit_that_adds_up_exits_with_0(settings, engine):
    with engine.begin() as conn:
        add_files(conn, add_repository(conn), 3)
        open_line(conn, name="qwen", base_model="base")
    report = invoke(audit, settings, "--json")
    assert (report.exit_code, json.loads(report.stdout)["by_state"]["pending"]) == (0, 3)
    assert "unaccounted  0" in invoke(audit, settings).stdout


def test_an_audit_that_does_not_add_up_exits_with_1_and_names_the_rows(settings, engine):
    with engine.begin() as conn:
        (file_id,) = add_files(conn, add_repository(conn, "/sources/here"), 1)
        open_line(conn, name="qwen", base_model="base")
        conn.execute(sa.text("DELETE FROM training_queue"))
    report = invoke(audit, settings)
    assert report.exit_code == 1
    assert f"qwen: file {file_id}: not_queued (/sources/here src/file_" in report.stdout
    report = invoke(audit, settings, "--json")
    assert (report.exit_code, json.loads(report.stdout)["rows_unaccounted"]) == (1, 1)


def test_an_engine_outlives_the_keeper_that_was_killed(tmp_path):
    settings = Settings(tmp_path, DatabaseSettings())
    with open_engine(settings) as engine:
        with engine.begin() as conn:
            add_repository(conn, "/kept")
        keeper = server_status(tmp_path).keeper_pid
        os.kill(keeper, signal.SIGKILL)

        # The dying server may answer once more: wait for the new keeper.
        sources = None
        while sources is None or server_status(tmp_path) is None:
            try:
                with engine.connect() as conn:
                    sources = list(conn.execute(sa.text("SELECT source FROM repositories")).scalars())
            except sa.exc.DBAPIError as error:
                if not is_outage(error):
                    raise

        assert sources == ["/kept"]
        assert server_status(tmp_path).keeper_pid != keeper
