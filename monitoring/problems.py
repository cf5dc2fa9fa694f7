"""Errors as machines read them: application/problem+json (RFC 9457)."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from flask import Response

CONTENT_TYPE = "application/problem+json"


def problem(
    status: int,
    detail: str | None = None,
    *,
    kind: str = "about:blank",
    title: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a problem: `kind` names it, `detail` says what to do, `errors` each thing that is wrong."""
    body = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": list(errors),
    }
    return Response(json.dumps(body) + "\n", status=status, content_type=CONTENT_TYPE, headers=dict(headers or {}))
