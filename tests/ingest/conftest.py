"""Sources made by the tests: folders, git repositories, and a real smart HTTP server in front of them."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
from tests.ingest.helpers import GIT, SETTINGS, Settings, git


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            path, _, query = self.path.partition("?")
            environment = GIT | {
                "GIT_PROJECT_ROOT": str(tmp_path),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(length),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"], env=environment, input=self.rfile.read(length), capture_output=True
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hanging_server() -> Iterator[str]:
    """The URL of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings on the fresh database, with a free port."""
    database = DatabaseSettings(database_url=SecretStr(database_url))
    return Settings(tmp_path / "home", database, MonitoringSettings(ingest_port=0), SETTINGS)


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., Result]]:
    """Call it with the arguments of `codelupe ingest`."""
    return lambda *arguments: CliRunner().invoke(ingest_group, list(arguments), obj=settings)
