"""Sources made by the tests: folders, git repositories, and a real smart HTTP server in front of them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import SecretStr

from ingest.commands import ingest as ingest_group
from ingest.commands import queue_source
from ingest.config import IngestSettings
from ingest.sources import normalise_source
from ingest.worker import work
from monitoring.config import MonitoringSettings
from schema.config import DatabaseSettings
from tests.ingest.helpers import SETTINGS, Settings, git
from tests.ingest.servers import Request, serve, serve_git


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Call it with a name and a mapping of paths to contents for a folder."""

    def make(name: str, files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return make


@pytest.fixture
def make_repository(make_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Call it like make_folder for a git repository with one commit more; without files it has none."""

    def make(name: str, files: Mapping[str, str | bytes]) -> Path:
        root = make_folder(name, files)
        if not (root / ".git").exists():
            git(root, "init", "-q", "-b", "main")
        if files:
            git(root, "add", "-A")
            git(root, "commit", "-q", "-m", "change")
        return root

    return make


@pytest.fixture
def ingest(engine: sa.Engine, tmp_path: Path) -> Callable[..., None]:
    """Call it with sources: they are queued and the queue is drained by a real worker with real children."""

    def run(*sources: object, settings: IngestSettings = SETTINGS) -> None:
        with engine.begin() as conn:
            for source in sources:
                queue_source(conn, normalise_source(str(source)))
        work(engine, settings, home=tmp_path / "home", stop=threading.Event(), once=True)
        assert list((tmp_path / "home" / "repos").iterdir()) == []

    return run


@pytest.fixture
def fetch(engine: sa.Engine) -> Callable[..., list[tuple[object, ...]]]:
    """Call it with SQL for the rows."""

    def run(sql: str, **values: object) -> list[tuple[object, ...]]:
        with engine.begin() as conn:
            return [tuple(row) for row in conn.execute(sa.text(sql), values)]

    return run


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[str]:
    """The URL of `git http-backend` over the test's folder: real smart HTTP on loopback."""

    with serve_git(tmp_path) as server:
        yield server.url


@pytest.fixture
def hanging_server() -> Iterator[str]:
    """The URL of a server that names a commit and then never answers git."""

    def respond(request: Request) -> None:
        request.advertise() if request.is_first else request.stopped.wait()

    with serve(respond) as server:
        yield server.url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings on the fresh database, with a free port."""
    database = DatabaseSettings(database_url=SecretStr(database_url))
    return Settings(tmp_path / "home", database, MonitoringSettings(ingest_port=0), SETTINGS)


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., Result]]:
    """Call it with the arguments of `codelupe ingest`."""
    return lambda *arguments: CliRunner().invoke(ingest_group, list(arguments), obj=settings)
