"""`sandbox ingest`: stores test and coverage reports in the platform's records."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.output import Json
from sandbox.client.transport import Transport

app = typer.Typer(help="Store test and coverage reports.", no_args_is_help=True)


class TestType(StrEnum):
    UNIT = "unit"
    INTEGRATION = "integration"
    SECURITY = "security"
    PERFORMANCE = "performance"
    REGRESSION = "regression"
    UAT = "uat"
    LOAD = "load"
    SMOKE = "smoke"
    E2E = "e2e"


class Environment(StrEnum):
    LOCAL = "local"
    DOCKER = "docker"
    CI = "ci"
    STAGING = "staging"
    PROD = "prod"


Report = Annotated[Path, typer.Argument(metavar="FILE", help="The report.")]
Type = Annotated[TestType, typer.Option("--test-type", "-t", help="Kind of tests.")]


@app.command("junit")
def junit(
    ctx: typer.Context,
    file: Report,
    test_type: Type = TestType.UNIT,
    environment: Annotated[Environment, typer.Option(help="Where the tests ran.")] = Environment.LOCAL,
    triggered_by: Annotated[str, typer.Option(help="Who or what started the tests.")] = "manual",
    branch: Annotated[str | None, typer.Option(help="Git branch.")] = None,
    commit: Annotated[str | None, typer.Option(help="Git commit.")] = None,
    console: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="LOG", help="Console output of the test run, from which warnings are read."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Store a JUnit XML report, as written by pytest, Jest, Maven and others.

    Most tools print warnings but do not include them in the report. To store the warnings, too, pass the console output
    with --output.

    Example: sandbox ingest junit report.xml --output console.log
    """
    params = {
        "test_type": test_type.value,
        "environment": environment.value,
        "triggered_by": triggered_by,
        "branch_name": branch,
        "commit_hash": commit,
    }
    files = {"report": _read(file)} | ({"output": _read(console)} if console else {})
    stored = output.run(_post(ctx, "/api/v1/test-results/junit", params, files=files))
    if as_json:
        output.print_json(stored)
        return
    output.out().print(
        f"test result {stored['test_id']}: {stored['total_tests']} tests, {stored['passed']} passed,"
        f" {stored['failed']} failed, {stored['skipped']} skipped, {stored['warnings']} warnings"
    )


@app.command("coverage")
def coverage(ctx: typer.Context, file: Report, test_type: Type = TestType.UNIT, as_json: Json = False) -> None:
    """Store a coverage report: Cobertura XML, or JSON from coverage.py.

    Example: sandbox ingest coverage coverage.xml
    """
    content = _read(file)
    is_json = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    path, kind = ("coverage-py", "application/json") if is_json else ("cobertura", "application/xml")
    params: dict[str, str | None] = {"test_type": test_type.value}
    stored = output.run(_post(ctx, f"/api/v1/coverage/{path}", params, content=content, headers={"Content-Type": kind}))
    if as_json:
        output.print_json(stored)
        return
    listing = output.table("COMPONENT", "COVERED", "LINES")
    for item in stored["items"]:
        lines = f"{item['lines_covered']}/{item['lines_total']}"
        listing.add_row(Text(output.plain(item["component"])), f"{item['coverage_percent']:.1f} %", lines)
    output.out().print(listing)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from error


async def _post(ctx: typer.Context, path: str, params: dict[str, str | None], **body: Any) -> dict[str, Any]:
    transport = Transport(output.config_of(ctx))
    try:
        return await transport.json("POST", path, params=params, timeout=120, **body)
    finally:
        await transport.aclose()
