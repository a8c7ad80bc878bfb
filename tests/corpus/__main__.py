"""`python -m tests.corpus [NAME…]`: runs the corpus on the service that `sandbox up` has started.

Prints one line for each project and the share that works. The results are kept in `.corpus.json`, so a run of some
names renews theirs; `docs/corpus.md` is the table of all.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.client.config import resolve
from tests.corpus.entry import Entry, read_entries
from tests.corpus.runner import Corpus, Outcome

_ROOT = Path(__file__).resolve().parents[2]
_TABLE, _RESULTS = _ROOT / "docs" / "corpus.md", _ROOT / ".corpus.json"
_INTRODUCTION = """# Frameworks that launch without configuration

Projects that the frameworks' own generators make, and examples of their documentation, uploaded as they are and
launched without `sandbox.toml`. `make corpus` makes this table. The seconds are those of a whole launch, with the
download of the dependencies, on the machine that ran it, which had other work at the same time. A row is that of the
last run of its project, which may be older than the project's present form.
"""

#: The last result of each entry by its name: plan, seconds and problem.
Results = dict[str, dict[str, Any]]


def main(names: list[str]) -> int:
    entries = read_entries()
    by_name = {entry.name: entry for entry in entries}
    chosen = [by_name[name] for name in names] if names else entries
    config = resolve()
    corpus = Corpus(config.base_url, config.token or "")
    results: Results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    try:
        for entry in chosen:
            outcome = corpus.run(entry)
            print(_shown(outcome), flush=True)
            results[entry.name] = {"plan": outcome.plan, "seconds": outcome.seconds, "problem": outcome.problem}
            _RESULTS.write_text(json.dumps(results, indent=1))
            _TABLE.write_text(_table(entries, results))
    finally:
        corpus.close()
    works, known = _share(entries, results)
    print(f"{works} of {known} work: {100 * works / max(1, known):.0f} %")
    return 0 if works >= 0.95 * known else 1


def _share(entries: list[Entry], results: Results) -> tuple[int, int]:
    """Return how many entries work, and how many have a result."""
    known = [results[entry.name] for entry in entries if entry.name in results]
    return sum(not result["problem"] for result in known), len(known)


def _shown(outcome: Outcome) -> str:
    state = "works" if not outcome.problem else f"FAILS {_line(outcome.problem)}"
    return f"{outcome.entry.name:24} {outcome.seconds:5.0f} s  {state}  {outcome.plan}"


def _table(entries: list[Entry], results: Results) -> str:
    works, known = _share(entries, results)
    counts = f"{works} of {known} ({100 * works / max(1, known):.0f} %)"
    share = f"{datetime.now(UTC):%Y-%m-%d}: {counts} show the framework's own page in the preview."
    missing = [entry.name for entry in entries if entry.name not in results]
    if missing:
        share += f"\nThese {len(missing)} are without a result in the table: {', '.join(missing)}."
    lines = [_INTRODUCTION, share, "", "| framework | detected start | seconds | result |", "|---|---|---|---|"]
    for entry in entries:
        result = results.get(entry.name)
        if result is None:
            continue
        problem = _line(str(result["problem"])) or "its own page"
        lines.append(f"| {entry.name} | {_line(str(result['plan']))} | {result['seconds']:.0f} | {problem} |")
    return "\n".join((*lines, ""))


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
