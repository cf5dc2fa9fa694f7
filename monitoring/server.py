"""The small web server of a process: a Flask app behind waitress, in threads beside the loop.

It knows nothing of the daemon: what it shows comes from the callables it is given, which must answer in milliseconds
from what is already known (no statement, no hash of a model), because Prometheus asks every few seconds.
"""

import contextlib
import errno
import functools
import json
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import waitress
from flask import Flask, Response, render_template, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from waitress import wasyncore
from werkzeug.exceptions import HTTPException

from monitoring.chart import HEIGHT, WIDTH, draw_loss
from monitoring.etags import unless_known
from monitoring.hosts import is_misdirected
from monitoring.metrics import REGISTRY
from monitoring.problems import problem
from monitoring.progress import format_duration

Json = Mapping[str, Any]

# More than the calls that wait for a database at once: health answers meanwhile.
_NUM_THREADS: Final = 8
_MAX_BODY_BYTES: Final = 1 << 20
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",  # noqa: E501
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_UNKNOWN_HEALTH: Final[Json] = {
    "status": "degraded",
    "reasons": ["health_check_failed"],
    "model_loaded": False,
    "last_trained_id": None,
    "current_version": None,
}

log = logging.getLogger(__name__)


class ListenError(Exception):
    """The address cannot be bound."""


class PortTaken(ListenError):
    """Another program listens there."""


def create_app(
    *,
    health: Callable[[], Json],
    ready: Callable[[], tuple[bool, list[str]]],
    status: Callable[[], Json],
    registry: CollectorRegistry = REGISTRY,
    install: Callable[[Flask], None] = lambda _app: None,
) -> Flask:
    """Return the app with /, /health, /ready, /metrics and /status, and what `install` adds.

    `health` gives `Health.to_json()`, `status` any JSON object, whose known keys / shows. One that raises is logged:
    /health then says `degraded`, /ready 503, /status 500.
    """
    app = Flask("monitoring", root_path=str(Path(__file__).parent))
    app.before_request(_refuse_misdirected)
    app.jinja_env.filters["duration"] = format_duration
    safe_health = functools.partial(_ask_health, health)

    @app.get("/health")
    def get_health() -> Response:
        answer = safe_health()
        return _json(answer, 503 if answer["status"] == "down" else 200)

    @app.get("/ready")
    def get_ready() -> Response:
        is_ready, reasons = _ask_ready(ready)
        return _json({"ready": is_ready, "reasons": reasons}, 200 if is_ready else 503)

    @app.get("/metrics")
    def get_metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    @app.get("/status")
    def get_status() -> Response:
        shown = status()
        # That it runs a moment longer is no news.
        return unless_known(_json(shown), _json({**shown, "uptime_s": None}).get_data())

    def view() -> dict[str, Any]:
        shown = _ask_status(status)
        training = (shown or {}).get("training") or {}
        chart = draw_loss((shown or {}).get("curve") or {}, training.get("total"))
        return {"health": safe_health(), "status": shown, "chart": chart, "width": WIDTH, "height": HEIGHT}

    @app.get("/")
    def get_page() -> str:
        return render_template("page.html", **view())

    @app.get("/view")
    def get_view() -> Response:
        """Answer with what changes of the page; 304 where nothing has."""
        return unless_known(Response(render_template("view.html", **view()), content_type="text/html; charset=utf-8"))

    @app.get("/favicon.ico")
    def get_favicon() -> Response:
        return app.send_static_file("icon.svg")

    install(app)
    app.register_error_handler(Exception, _answer_error)
    app.after_request(_harden)
    return app


class Server:
    """A running server; close it."""

    def __init__(self, app: Flask, listener: socket.socket) -> None:
        self.host, self.port = listener.getsockname()[:2]
        self._sockets: dict[int, Any] = {}
        self._waitress = waitress.create_server(
            app,
            map=self._sockets,
            sockets=[listener],
            threads=_NUM_THREADS,
            max_request_body_size=_MAX_BODY_BYTES,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        self._thread = threading.Thread(target=self._waitress.run, name=f"http-{self.port}", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Return where a browser on this machine finds it."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        host = f"[{local}]" if ":" in local else local
        return f"http://{host}:{self.port}/"

    def close(self) -> None:
        """Answer what was asked, then close every socket and end the threads; a second call does nothing."""
        if not self._thread.is_alive():
            return
        self._waitress.task_dispatcher.shutdown()
        trigger = self._waitress.trigger
        # A copy: woken by the last answer, the loop may have closed all, and this end with it, before we write.
        wake = os.dup(trigger.trigger)
        try:
            # In the loop's own thread: closing a socket under its select() would be an error there.
            with trigger.lock:
                trigger.thunks.append(lambda: wasyncore.close_all(self._sockets, ignore_all=True))
            with contextlib.suppress(BrokenPipeError):
                os.write(wake, b"x")
        finally:
            os.close(wake)
        self._thread.join()


def serve(app: Flask, host: str, port: int, *, port_setting: str = "CODELUPE_DAEMON_PORT") -> Server:
    """Serve the app at host:port (0: a free one) until `Server.close()`; `port_setting` is named when that fails."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {host}: {error.strerror}. CODELUPE_HOST sets the address.") from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _explain(error, host, port, port_setting) from error
    server = Server(app, listener)
    log.info("listening on %s", server.url, extra={"event": "http_listening", "url": server.url})
    return server


def _explain(error: OSError, host: str, port: int, setting: str) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {port} of {host} is taken by another program. {setting} sets another port; 0 takes a free one."
        )
    return ListenError(
        f"cannot listen on {host}:{port}: {error.strerror}. CODELUPE_HOST and {setting} set the address."
    )


def _ask_health(health: Callable[[], Json]) -> Json:
    try:
        return health()
    except Exception:
        log.exception("the health check failed", extra={"event": "health_check_failed"})
        return _UNKNOWN_HEALTH


def _ask_ready(ready: Callable[[], tuple[bool, list[str]]]) -> tuple[bool, list[str]]:
    try:
        return ready()
    except Exception:
        log.exception("the readiness check failed", extra={"event": "ready_check_failed"})
        return False, ["ready_check_failed"]


def _ask_status(status: Callable[[], Json]) -> Json | None:
    try:
        return status()
    except Exception:
        log.exception("the status could not be told", extra={"event": "status_failed"})
        return None


def _json(body: Json, code: int = 200) -> Response:
    text = json.dumps(_finite(body), default=str, allow_nan=False, ensure_ascii=False)
    return Response(text + "\n", status=code, content_type="application/json")


def _finite(value: Any) -> Any:
    """Return the value with NaN and infinity as null, which is what JSON has for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _answer_error(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        return problem(error.code or 500, headers=headers)
    log.error("the request failed", exc_info=error, extra={"event": "request_failed", "path": request.path})
    return problem(500)


def _refuse_misdirected() -> Response | None:
    """Refuse a browser here that a page with another name sent: reading is open to this machine, not to any page."""
    if is_misdirected(request.remote_addr or "", request.headers.get("Host", "")):
        return problem(421, "the Host header names another machine: ask for localhost or 127.0.0.1")
    return None


def _harden(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response
