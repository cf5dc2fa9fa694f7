"""The OpenAPI document, made from the routes and the models that requests are checked and answers made by."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from daemon.api.calls import KEY, Route
from daemon.api.problems import Problem

_REFERENCE = "#/components/schemas/{model}"
# What any operation may answer with, beside its own.
_ANY = (400, 401, 403, 404, 405, 421, 422, 500, 503)
_WITH_BODY = (413, 415)
_WORDS = {
    400: "The request is no HTTP or no JSON that makes sense",
    401: "A token is missing, or is not known",
    403: "The token does not have the scope",
    404: "There is no such thing",
    405: "Not by this method",
    409: "Not in the present state; the detail says why",
    413: "The body is too large",
    415: "The body is not application/json",
    421: "The Host header names another machine",
    422: "The request is not what the operation takes; `errors` says where",
    429: "Too many of them wait already",
    500: "A fault of the service, which is in its log",
    503: "The database is away, or the service starts or is busy; try again after the time given",
}
_INTRODUCTION = (
    "Steers one line of a running service. From the service's own machine reading needs no token; all else needs "
    "`Authorization: Bearer TOKEN`, made by `codelupe token create`."
)

_UNCHANGED = "Nothing has changed since the answer whose ETag If-None-Match named."


def make_document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        place = re.sub(r"<(\w+)>", r"{\1}", route.rule)
        paths.setdefault(place, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "codelupe",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(routes), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    bodies = {route.body for route in routes if route.body is not None}
    answers = {Problem} | {route.answer for route in routes}
    asked = sorted(((model, "validation") for model in bodies), key=_name)
    given = sorted(((model, "serialization") for model in answers), key=_name)
    _, schemas = models_json_schema([*asked, *given], ref_template=_REFERENCE)  # type: ignore[list-item]
    found: dict[str, Any] = schemas["$defs"]
    return found


def _name(entry: tuple[type[BaseModel], str]) -> str:
    return entry[0].__name__


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Needs the scope `{route.scope}`" + ("." if route.changes else " from another machine."),
        "parameters": _parameters(route),
        "security": [{"token": []}] if route.changes else [{}, {"token": []}],
        "responses": {
            str(route.status): {
                "description": _first_line(route.answer),
                "content": {"application/json": {"schema": _reference(route.answer)}},
            },
            **({} if route.changes else {"304": {"description": _UNCHANGED}}),
            **{str(status): _problem(status) for status in sorted({*_ANY, *route.problems, *_of_body(route)})},
        },
    }
    if route.body is not None:
        needed = any(field.is_required() for field in route.body.model_fields.values())
        content = {"application/json": {"schema": _reference(route.body)}}
        operation["requestBody"] = {"required": needed, "content": content}
    return operation


def _of_body(route: Route) -> tuple[int, ...]:
    return () if route.body is None else _WITH_BODY


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": _WORDS[status],
        "content": {"application/problem+json": {"schema": _reference(Problem)}},
    }


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters = [*_describe("path", route.path), *_describe("query", route.query)]
    if route.takes_key:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Sent again with the same key, the request is done once.",
                "schema": {"type": "string", "pattern": KEY, "minLength": 1, "maxLength": 200},
            }
        )
    return parameters


def _describe(place: str, model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """Yield the parameters of a path or a query."""
    schema = model.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        yield {
            "name": name,
            "in": place,
            "required": place == "path" or name in schema.get("required", ()),
            "description": field.pop("description", ""),
            "schema": field,
        }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]
