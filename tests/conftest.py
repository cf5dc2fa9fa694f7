"""What every test may use: a throw-away PostgreSQL of our own launcher, and a fresh database in it."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from schema.database import create_engine, upgrade
from schema.embedded import open_server, stop_server
from tests.processes import Service, end_processes_of
from tests.rows import store_rows
from tests.waiting import close

_TEMPLATE = "codelupe_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A server of this test process (of each xdist worker) alone; call it with a database's name for its URL."""
    home = tmp_path_factory.mktemp("postgres")
    options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    # make test-system runs the SQL tests a second time, on Debian's PostgreSQL.
    binaries = os.environ.get("TEST_POSTGRES_BIN")
    postgres_bin = Path(binaries) if binaries else None
    with open_server(home, postgres_bin=postgres_bin, purpose="tests", options=options, grace_s=0.0) as server:
        url = make_url(server.url)
        yield lambda database: url.set(database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def empty_database(postgres: Callable[[str], str]) -> Callable[..., str]:
    """Call it for the URL of a new database, a copy of `template` where that is given."""
    admin = make_url(postgres("postgres")).set(drivername="postgresql").render_as_string(hide_password=False)

    def create(template: str = "template1", name: str | None = None) -> str:
        name = name or f"test_{next(_numbers)}"
        with psycopg.connect(admin, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return postgres(name)

    return create


@pytest.fixture(scope="session")
def migrated_template(empty_database: Callable[..., str]) -> str:
    """The name of a database that was migrated once, to copy from."""
    engine = create_engine(empty_database(name=_TEMPLATE), application_name="tests")
    upgrade(engine)
    engine.dispose()
    return _TEMPLATE


@pytest.fixture
def database_url(empty_database: Callable[..., str], migrated_template: str) -> str:
    """A fresh, migrated database."""
    return empty_database(migrated_template)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the fresh database."""
    engine = create_engine(database_url, application_name="tests")
    yield engine
    close(engine)


@pytest.fixture(scope="session")
def _home_with_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("rows") / "home"
    home.mkdir()
    with open_server(home, options={"fsync": "off"}, grace_s=30.0) as server:
        engine = create_engine(server.url, application_name="tests")
        upgrade(engine)
        engine.dispose()
        store_rows(server.url)
    stop_server(home)
    return home


@pytest.fixture
def home_with_rows(_home_with_rows: Path, tmp_path: Path) -> Path:
    """A home whose PostgreSQL, stopped, holds rows for one run (`store_rows`)."""
    return shutil.copytree(_home_with_rows, tmp_path / "home")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start codelupe in a process of its own; the arguments are those of `Service`. Nothing of it is left behind."""
    services: list[Service] = []

    def begin(*words: str, home: Path | None = None, **values: Any) -> Service:
        services.append(Service(home or tmp_path / "home", *words, **values))
        return services[-1]

    yield begin
    for service in services:
        end_processes_of(service.home)
        service.process.wait()
