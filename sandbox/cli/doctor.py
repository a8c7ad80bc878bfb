"""`sandbox doctor`: checks everything that the service needs."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.environment import load_settings
from sandbox.cli.output import Json


def doctor(as_json: Json = False) -> None:
    """Check everything that the service needs, and show what is wrong and how to fix it. Changes nothing.

    The exit code is 1 if a check fails. Warnings do not count as failures.

    Example: sandbox doctor
    """
    from sandbox.cli.checks import Verdict, run_checks

    styles = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
    findings = output.run(run_checks(load_settings()))
    if as_json:
        output.print_json({"items": [asdict(finding) for finding in findings]})
    else:
        listing = output.table("CHECK", "", "FOUND", "WHAT TO DO")
        for found in findings:
            verdict = Text(found.verdict.value, style=styles[found.verdict])
            listing.add_row(found.check, verdict, Text(output.plain(found.detail)), Text(output.plain(found.hint)))
        output.out().print(listing)
    if any(found.verdict is Verdict.FAIL for found in findings):
        raise typer.Exit(output.Exit.FAILED)
