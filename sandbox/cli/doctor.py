"""`sandbox doctor`: is everything there that a service needs, and does it work?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.environment import load_settings


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON document for scripts.")] = False) -> None:
    """Look at everything a service needs, and say what is wrong and what to do. Changes nothing.

    Ends with code 1 if something is not as it must be; a warning is no failure.

    Example: sandbox doctor
    """
    from sandbox.cli.checks import Verdict, examine

    styles = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
    findings = output.run(examine(load_settings()))
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
