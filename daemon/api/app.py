"""The API in Flask: who may, what was asked, do it in one transaction, record it; every refusal is a problem."""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import sqlalchemy as sa
from flask import Flask, Response, request
from psycopg.errors import QueryCanceled
from pydantic import BaseModel, ValidationError

from daemon.api.access import authorise
from daemon.api.calls import KEY, Call, Refusal, Route
from daemon.api.openapi import make_document
from daemon.api.routes import ROUTES
from daemon.api.tokens import TokenFile
from daemon.config import DaemonSettings
from daemon.paths import LinePaths
from monitoring.etags import unless_known
from monitoring.problems import problem
from schema.database import create_engine, describe_outage, is_locked_out, is_outage
from schema.lines import Line, fetch_line
from schema.listings import record_call
from schema.stalls import cut_when_stopped

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 64 * 1024
# Calls that are at the database at once: while it stalls, the server's other threads still answer for health.
_MOST_AT_WORK = 2
_PATIENCE_S = 2.0
_RETRY = {"Retry-After": "5"}
_KINDS = "urn:codelupe:problem:"


@dataclass(frozen=True, slots=True)
class Api:
    """What the API works with. `changed` is called when something was changed, so that the daemon looks at once."""

    engine: sa.Engine
    configured: DaemonSettings
    paths: LinePaths
    tokens: TokenFile
    changed: Callable[[], None]
    _at_work: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_MOST_AT_WORK))

    def install(self, app: Flask) -> None:
        """Add the routes to a web server's app."""
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        document = make_document(ROUTES, version("codelupe"))

        def describe() -> dict[str, Any] | Response:
            try:
                authorise(self.tokens, "read", changes=False)
            except Refusal as refusal:
                return _refuse(refusal)
            return document

        app.add_url_rule("/v1/openapi.json", "describeApi", describe, provide_automatic_options=False)
        for route in ROUTES:
            app.add_url_rule(
                route.rule,
                route.name,
                partial(self._answer, route),
                methods=[route.method],
                provide_automatic_options=False,
            )

    def _answer(self, route: Route, **path: str) -> Response:
        caller = ""
        try:
            token = authorise(self.tokens, route.scope, changes=route.changes)
            caller = token.name if token else ""
            given = _read_request(route, path)
            answer = self._do(route, caller, given)
        except Refusal as refusal:
            if caller and route.changes:
                self._record_refusal(route, caller, refusal)
            return _refuse(refusal)
        if route.changes:
            self.changed()
        body = answer.model_dump_json() + "\n"
        response = Response(body, status=route.status, content_type="application/json")
        if route.status == 202:
            response.headers["Location"] = f"/v1/jobs/{getattr(answer, 'id', '')}"
        return response if route.changes else unless_known(response)

    def _do(self, route: Route, caller: str, given: Mapping[str, Any]) -> BaseModel:
        """Handle a call and record it, in one transaction."""
        with self._worker(), _outages_refused(), self.engine.begin() as conn:
            line = self._find_line(conn)
            parts: dict[str, Any] = {"engine": self.engine, "configured": self.configured, "paths": self.paths}
            answer = route.handle(Call(conn=conn, line=line, caller=caller, **parts, **given))
            if route.changes:
                self._record(conn, route, caller, route.status)
            return answer

    def _find_line(self, conn: sa.Connection) -> Line:
        line = fetch_line(conn, self.configured.line)
        if line is None:
            raise Refusal(
                503, "starting", f"line {self.configured.line} is not open yet: the daemon starts", headers=_RETRY
            )
        return line

    @contextmanager
    def _worker(self) -> Iterator[None]:
        if not self._at_work.acquire(timeout=_PATIENCE_S):
            raise Refusal(503, "busy", "other calls are waiting for the database", headers=_RETRY)
        try:
            yield
        finally:
            self._at_work.release()

    def _record_refusal(self, route: Route, caller: str, refusal: Refusal) -> None:
        try:
            with self._worker(), _outages_refused(), self.engine.begin() as conn:
                self._record(conn, route, caller, refusal.status, refusal.detail)
        except Refusal as error:
            log.warning("a refused call could not be recorded: %s", error, extra={"event": "api_call_unrecorded"})

    def _record(self, conn: sa.Connection, route: Route, caller: str, status: int, detail: str | None = None) -> None:
        address = request.remote_addr or ""
        record_call(
            conn,
            token=caller,
            operation=route.name,
            path=_printable(request.path),
            address=address,
            status=status,
            detail=detail and _printable(detail),
        )
        event = {"event": "api_call", "token_name": caller, "operation": route.name, "status": status}
        log.info("%s called %s: %d", caller, route.name, status, extra=event)


@contextmanager
def open_api(
    engine: sa.Engine,
    configured: DaemonSettings,
    paths: LinePaths,
    tokens: TokenFile,
    changed: Callable[[], None],
    stop: threading.Event,
) -> Iterator[Api]:
    """Yield the API on connections of its own to the database of `engine`: a call must not keep the tick waiting."""
    url = engine.url.render_as_string(hide_password=False)
    # A promotion looks and writes on two of them; one is for the page.
    own = create_engine(url, application_name="codelupe api", pool_size=2 * _MOST_AT_WORK + 1, statement_timeout_s=10)
    try:
        with cut_when_stopped(own, stop):
            yield Api(own, configured, paths, tokens, changed)
    finally:
        own.dispose()


def _read_request(route: Route, path: Mapping[str, str]) -> dict[str, Any]:
    """Return path, query, body and key as the route takes them. Raises Refusal naming everything that is wrong."""
    query = request.args.to_dict()
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise _invalid([{"where": f"query.{repeated[0]}", "message": "given more than once"}])
    key = request.headers.get("Idempotency-Key") if route.takes_key else None
    if key is not None and not re.fullmatch(KEY[1:-1], key):
        raise _invalid([{"where": "header.Idempotency-Key", "message": f"must match {KEY}"}])
    return {
        "path": _check("path", lambda: route.path.model_validate(path)),
        "query": _check("query", lambda: route.query.model_validate(query)),
        "body": _check("body", lambda: _read_body(route)),
        "key": key,
    }


def _read_body(route: Route) -> BaseModel | None:
    if route.body is None:
        return None
    data = request.get_data()
    if data and request.mimetype != "application/json":
        raise Refusal(415, "not-json", "send the body as application/json")
    return route.body.model_validate_json(data or b"{}")


def _check(part: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise Refusal(400, "no-json", found[0]["msg"]) from error
        raise _invalid(
            [{"where": ".".join(map(str, (part, *one["loc"]))), "message": one["msg"]} for one in found]
        ) from error


def _printable(text: str) -> str:
    """Return what a stranger wrote as a row may hold it: PostgreSQL stores no NUL, and a list shows one line each."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:500])


def _invalid(errors: list[dict[str, str]]) -> Refusal:
    words = "; ".join(f"{error['where']}: {error['message']}" for error in errors[:3])
    return Refusal(422, "invalid", words, errors=errors)


@contextmanager
def _outages_refused() -> Iterator[None]:
    """Refuse with 503 what the database cannot do now."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        is_slow = isinstance(error, sa.exc.DBAPIError) and isinstance(error.orig, QueryCanceled)
        if not (is_outage(error) or is_locked_out(error) or is_slow):
            raise
        words = f"the database does not answer: {describe_outage(error)}"
        raise Refusal(503, "database-away", words, headers=_RETRY) from error


def _refuse(refusal: Refusal) -> Response:
    return problem(
        refusal.status,
        refusal.detail,
        kind=_KINDS + refusal.kind,
        title=refusal.kind.replace("-", " "),
        errors=refusal.errors,
        headers=refusal.headers,
    )
