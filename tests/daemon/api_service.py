"""The API as its callers meet it: served on a free port over a real database, with tokens from a file."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from daemon.api.app import open_api
from daemon.api.tokens import SCOPES, TokenFile, add_token
from daemon.config import DaemonSettings
from daemon.paths import LinePaths
from monitoring.server import create_app, serve
from tests.waiting import DEADLINE_S

WELL = {"status": "ok", "reasons": [], "model_loaded": False, "last_trained_id": None, "current_version": None}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Caller:
    """Who asks the service; `secrets` are tokens by their scope, and `all` has every scope."""

    port: int
    paths: LinePaths
    tokens: Path
    secrets: dict[str, str]
    changes: list[str]  # one for each time the daemon was told to look
    stop: Callable[[], None]  # ends the service; a second call does nothing

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Answer:
        """Send one request; a `token` is a key of `secrets`, or else sent as it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {self.secrets.get(token, token)}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body=body, headers=named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()


@contextmanager
def api_service(
    engine: Engine,
    home: Path,
    line: str,
    *,
    health: Callable[[], dict[str, Any]] = lambda: WELL,
    status: Callable[[], dict[str, Any]] = dict,
) -> Iterator[Caller]:
    """Serve the API of a line whose row is there, and the page."""
    tokens, changes = home / "api_tokens", []
    secrets = {scope: add_token(tokens, scope, [scope]) for scope in SCOPES}
    secrets["all"] = add_token(tokens, "all", SCOPES)
    paths, stop = LinePaths(home, line), threading.Event()
    with open_api(
        engine, DaemonSettings(line=line), paths, TokenFile(tokens), lambda: changes.append("looked"), stop
    ) as api:
        app = create_app(
            health=health,
            ready=lambda: (True, []),
            status=status,
            registry=CollectorRegistry(),
            install=api.install,
        )
        server = serve(app, "127.0.0.1", 0)
        try:
            yield Caller(server.port, paths, tokens, secrets, changes, server.close)
        finally:
            server.close()
