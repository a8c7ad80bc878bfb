"""The result of a fault run as a page of documentation (`docs/reliability.md`)."""

from __future__ import annotations

from tests.chaos.counts import Counts

_HEAD = """\
# Reliability, measured

Written by `make chaos CHAOS_REPORT=docs/reliability.md`, which lets faults happen at random times under load and counts
what they did. This is the result of {faults} faults in {minutes:.0f} minutes, with the seed {seed}.

- **lost**: sessions that did not come back with their files, or that needed an admin after a fault after which they
  come back by themselves
- **leaked**: sessions that were deleted and of which something stayed on the engine
- **doubled**, **missing**: events that were stored or seen twice or not at all, and installs that ran twice
- **misreported**: states that were shown and were still not true after two minutes, and answers with status 500
- **recovered**: sessions that an admin's `recover` brought back
- **true after**: seconds from the end of the fault until the state that is shown is true and stays so

The line `several at once` has the rounds in which a fault of the whole service met others; which of them had an effect
is not known then.
"""


def report(counts: Counts, seed: int, minutes: float) -> str:
    """The page, in Markdown."""
    head = _HEAD.format(faults=counts.times.total(), minutes=minutes, seed=seed)
    notes = (
        "".join(f"- {note}\n" for note in counts.notes)
        or "Nothing was lost, leaked, doubled, missing or misreported.\n"
    )
    return f"{head}\n{counts.table()}\n\n{notes}"
