"""The document of the API: valid, complete, and true."""

import asyncio
from typing import Any

import pytest
import schemathesis
from api.door import Api
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from taskrunner.api import role
from taskrunner.api.openapi import document
from taskrunner.settings import Settings
from taskrunner.store.tasks import open_store

ENDLESS = {"/api/events"}
EXAMPLES = 40
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


async def fetched(api: Api) -> dict[str, Any]:
    async with api.http.get("/api/openapi.json") as answer:
        assert answer.status == 200
        return dict(await answer.json())


async def test_the_document_is_valid(api: Api) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(await fetched(api)).iter_errors()] == []


async def test_every_route_and_every_answer_is_in_it(dsn: str) -> None:
    async with open_store(dsn, Settings()) as store:
        rooms = role.Rooms(store)
        served = {(route.method, route.resource.canonical) for route in rooms.application().router.routes() if route.resource}
        routes = rooms.routes()
        paths = document(routes)["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    pages = {("GET", path) for path in role.page.FILES}
    assert {pair for pair in served if pair[0] != "HEAD"} - pages - {("GET", "/api/openapi.json")} == documented
    for route in routes:
        responses = paths[route.path][route.method.lower()]["responses"]
        assert set(responses) == {str(status) for status in (*route.answers, *(error.status for error in route.refusals))}
        for error in route.refusals:
            assert error.code in responses[str(error.status)]["content"]["application/problem+json"]["examples"]


async def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(api: Api) -> None:
    operations = [operation for methods in (await fetched(api))["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"].endswith((".", ":")) or len(operation["summary"]) > 10 for operation in operations)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # hypothesis sees the API's loop, in the other thread, draw numbers
@pytest.mark.timeout(120)
async def test_strangers_find_no_answer_that_is_not_in_it(api: Api) -> None:
    """schemathesis sends what the document allows and what it does not: no 5xx, and every answer is one of those that are documented."""
    url = str(api.http._base_url)
    schema = schemathesis.openapi.from_dict(await fetched(api))
    schema.config.update(base_url=url)
    for task_type in ("a", "b"):
        await api.finish((await api.create(task_type=task_type))["id"])

    def fuzz() -> None:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path not in ENDLESS:
                _try(operation)

    await asyncio.to_thread(fuzz)


def _try(operation: Any) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def each(case: Any) -> None:
        if operation.path == "/api/work/claim" and isinstance(case.body, dict):
            case.body["wait"] = 0  # it would wait for tasks
        case.call_and_validate(checks=CHECKS, timeout=30)

    each()
