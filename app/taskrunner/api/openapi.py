"""The table of routes as an OpenAPI 3.1 document, built from the very models that validate."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import TypeAdapter

from taskrunner.api import shapes
from taskrunner.api.access import COOKIE
from taskrunner.api.routes import JSON, Answer, Error, Parameter, Route

REF = "#/components/schemas/{model}"
PROBLEM = "application/problem+json"
ABOUT = """A task service on PostgreSQL: you POST a task with a type, a payload and a time, and it runs on one of your workers.

Times are RFC 3339 in UTC, durations are seconds, unknown fields are refused. Errors are RFC 9457 problems."""

SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "a token of the settings, or of `taskrunner token create`"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "a browser's, from POST /api/session"},
}

Mode = Literal["validation", "serialization"]


class _Models:
    """Collects models, and knows the schema of each once all are collected."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[Mode, Any]] = {}
        self._schemas: dict[tuple[int, Mode], Any] = {}
        self.components: dict[str, Any] = {}

    def add(self, model: Any, mode: Mode) -> None:
        if model is not None:
            self._asked[id(model)] = (mode, model)

    def close(self) -> None:
        inputs = [(key, mode, TypeAdapter(model)) for key, (mode, model) in self._asked.items()]
        self._schemas, rest = TypeAdapter.json_schemas(inputs, ref_template=REF)
        self.components = rest.get("$defs", {})

    def schema(self, model: Any) -> Any:
        return self._schemas[id(model), self._asked[id(model)][0]]


def described(routes: Sequence[Route]) -> Route:
    """The route of the document, which describes itself too."""

    async def openapi(_: web.Request) -> web.Response:
        """The document that you are reading, as OpenAPI 3.1."""
        return web.Response(body=body, content_type=JSON)

    route = Route(
        method="GET",
        path="/api/openapi.json",
        handler=openapi,
        group="service",
        scope=None,
        answers={200: Answer("OpenAPI 3.1", dict[str, Any])},
    )
    body = orjson.dumps(document([*routes, route]))
    return route


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes."""
    models = _Models()
    models.add(shapes.Problem, "serialization")
    for route in routes:
        for answer in route.answers.values():
            for model in (answer.model, *answer.others.values()):
                models.add(model, "serialization")
        for model in route.body.kinds.values() if route.body else ():
            models.add(model, "validation")
        for parameter in route.parameters:
            models.add(parameter.type, "validation")
    models.close()
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method.lower()] = _operation(route, models)
    return {
        "openapi": "3.1.0",
        "info": {"title": "taskrunner", "version": version("taskrunner"), "description": ABOUT},
        "tags": [{"name": name} for name in dict.fromkeys(route.group for route in routes)],
        "paths": paths,
        "components": {"schemas": models.components, "securitySchemes": SCHEMES},
    }


def _operation(route: Route, models: _Models) -> dict[str, Any]:
    summary, _, description = route.words.partition("\n")
    operation: dict[str, Any] = {
        "operationId": _name(route),
        "tags": [route.group],
        "summary": summary,
        "description": " ".join(description.split()) or summary,
        "security": [] if route.scope is None else [{scheme: [route.scope]} for scheme in SCHEMES],
        "parameters": [_parameter(one, models) for one in route.parameters],
        "responses": {str(status): _answer(answer, models) for status, answer in sorted(route.answers.items())},
    }
    if route.body is not None:
        content = {kind: {"schema": models.schema(model)} for kind, model in route.body.kinds.items()}
        if route.body.example is not None:
            next(iter(content.values()))["example"] = route.body.example
        operation["requestBody"] = {"required": route.body.required, "content": content}
    operation["responses"] |= _refusals(route, models)
    return operation


def _name(route: Route) -> str:
    """``post_tasks``, ``get_tasks_one``, ``post_queues_pause``: the method and the words of the path."""
    words = [word for word in route.path.split("/") if word and word[0] != "{"]
    words = words[1:] if words[0] == "api" else ["root", *words]
    return "_".join((route.method.lower(), *words, *(["one"] if route.path.endswith("}") else []))).replace(".", "_")


def _parameter(one: Parameter, models: _Models) -> dict[str, Any]:
    found = {
        "name": one.name,
        "in": one.place,
        "required": one.place == "path",
        "description": one.about,
        "schema": models.schema(one.type),
    }
    return found if one.example is None else found | {"example": one.example}


def _answer(answer: Answer, models: _Models) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.about}
    if answer.headers:
        found["headers"] = {name: {"description": about, "schema": {"type": "string"}} for name, about in answer.headers.items()}
    if answer.model is not None:
        kinds = {answer.kind: answer.model, **answer.others}
        found["content"] = {kind: {"schema": models.schema(model)} for kind, model in kinds.items()}
    return found


def _refusals(route: Route, models: _Models) -> dict[str, Any]:
    """One response a status; its codes stand in the description, and each has an example."""
    by_status: dict[int, list[Error]] = defaultdict(list)
    for error in route.refusals:
        by_status[error.status].append(error)
    return {
        str(status): {
            "description": "; ".join(f"`{error.code}`: {error.about}" for error in errors),
            "content": {PROBLEM: {"schema": models.schema(shapes.Problem), "examples": _examples(errors, route.path)}},
        }
        for status, errors in sorted(by_status.items())
    }


def _examples(errors: Iterable[Error], path: str) -> dict[str, Any]:
    return {
        error.code: {
            "value": {
                "type": "about:blank",
                "title": HTTPStatus(error.status).phrase,
                "status": error.status,
                "detail": error.about,
                "instance": path,
                "code": error.code,
                "error": error.about,
            }
        }
        for error in errors
    }
