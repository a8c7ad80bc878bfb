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

from sandbox.client.config import resolve
from tests.corpus.entry import read_entries
from tests.corpus.runner import Corpus, Outcome

_ROOT = Path(__file__).resolve().parents[2]
_TABLE, _RESULTS = _ROOT / "docs" / "corpus.md", _ROOT / ".corpus.json"
_INTRODUCTION = """# Frameworks that launch without configuration

Projects that the frameworks' own generators make, and examples of their documentation, uploaded as they are and
launched without `sandbox.toml`. `make corpus` makes this table. The seconds are those of a whole launch, with the
download of the dependencies, on the machine that ran it.
"""


def main(names: list[str]) -> int:
    entries = read_entries()
    chosen = [entry for entry in entries if not names or entry.name in names]
    config = resolve()
    corpus = Corpus(config.base_url, config.token or "")
    results: dict[str, dict[str, object]] = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    try:
        for entry in chosen:
            outcome = corpus.run(entry)
            print(_shown(outcome), flush=True)
            results[entry.name] = {"plan": outcome.plan, "seconds": outcome.seconds, "problem": outcome.problem}
            _RESULTS.write_text(json.dumps(results, indent=1))
    finally:
        corpus.close()
    known = [(entry.name, results[entry.name]) for entry in entries if entry.name in results]
    works = sum(not result["problem"] for _, result in known)
    print(f"{works} of {len(known)} work: {100 * works / max(1, len(known)):.0f} %")
    _TABLE.write_text(_table(known, works, [entry.name for entry in entries if entry.name not in results]))
    return 0 if works >= 0.95 * len(known) else 1


def _shown(outcome: Outcome) -> str:
    state = "works" if not outcome.problem else f"FAILS {_line(outcome.problem)}"
    return f"{outcome.entry.name:24} {outcome.seconds:5.0f} s  {state}  {outcome.plan}"


def _table(known: list[tuple[str, dict[str, object]]], works: int, missing: list[str]) -> str:
    share = f"{datetime.now(UTC):%Y-%m-%d}: {works} of {len(known)} show the framework's own page in the preview."
    if missing:
        share += f"\nThese {len(missing)} are without a result in the table: {', '.join(missing)}."
    lines = [_INTRODUCTION, share, "", "| framework | detected start | seconds | result |", "|---|---|---|---|"]
    for name, result in known:
        problem = _line(str(result["problem"])) or "its own page"
        lines.append(f"| {name} | {_line(str(result['plan']))} | {result['seconds']:.0f} | {problem} |")
    return "\n".join((*lines, ""))


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
