"""Takes the values of secrets out of rows that an app of a session has sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from sandbox.domain.redaction import redacted_lines
from sandbox.telemetry.rows import MAX_TEXT, column, json_column


def redacted(rows: list[bytes], secrets: Mapping[str, str]) -> list[bytes]:
    """The rows, which are lines of COPY, with `[secret NAME]` in place of values.

    A value is looked for as COPY and JSON write it.
    """
    names: dict[bytes, bytes] = {}
    for line, name in redacted_lines(secrets).items():
        mark = f"[secret {name}]".encode()
        in_json = json.dumps(line).removeprefix('"').removesuffix('"').replace("\\", "\\\\")
        for form in (column(line, MAX_TEXT), json_column(line)[1:-1], in_json):
            names[form.encode("utf-8", "replace")] = mark
    if not names:
        return rows
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile(b"|".join(map(re.escape, longest_first)))
    return [pattern.sub(lambda match: names[match[0]], row) for row in rows]
