"""The OpenAPI document describes errors and authentication correctly."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sandbox.api.http import problems
from sandbox.api.http.openapi import Problem
from sandbox.app import create_app
from sandbox.errors import InvalidInput
from sandbox.settings import Settings

METHODS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home: Path = tmp_path_factory.mktemp("home")
    return create_app(Settings(home=home)).api.openapi()


def test_every_reference_is_defined(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)))
    assert "components/responses/Problem" in references
    for reference in references:
        found: Any = document
        for part in reference.split("/"):
            found = found[part]


def test_every_route_has_a_description_and_answers_errors_as_problems(document: dict[str, Any]) -> None:
    operations = {
        f"{method} {path}": item[method] for path, item in document["paths"].items() for method in METHODS & item.keys()
    }
    assert len(operations) > 50
    assert {name for name, operation in operations.items() if not operation.get("description")} == set()
    without = {name for name, operation in operations.items() if "default" not in operation["responses"]}
    assert without == {"get /healthz", "get /readyz"} == {n for n, o in operations.items() if o.get("security") == []}
    assert "HTTPValidationError" not in json.dumps(document)
    assert document["security"] == [{name: []} for name in document["components"]["securitySchemes"]]


def test_a_problem_matches_its_schema() -> None:
    sent = json.loads(bytes(problems.render(InvalidInput("wrong", hint="right")).body))
    assert Problem.model_validate(sent).model_dump(by_alias=True, exclude_unset=True) == sent
