"""Causes are found in worker processes."""

from __future__ import annotations

from typing import cast
from uuid import uuid4

import pytest

from sandbox.domain.evidence import FailureCause
from sandbox.launch.causes import reading
from sandbox.launch.causes.finding import Causes
from sandbox.workers import InputTooComplex, Workers, WorkersBusy, WorkerTimeout

OUTPUT = [
    "Traceback (most recent call last):",
    '  File "/workspace/main.py", line 3, in <module>',
    "    import flask",
    "ModuleNotFoundError: No module named 'flask'",
]


async def test_a_cause_is_found_in_another_process() -> None:
    causes = Causes(Workers(1, [reading.__name__]))
    cause = await causes.find(uuid4(), OUTPUT, "/workspace")
    assert cause == reading.find_cause(OUTPUT, "/workspace")
    assert cause.evidence.cause is FailureCause.MISSING_MODULE


@pytest.mark.parametrize("error", [InputTooComplex, WorkersBusy, WorkerTimeout])
async def test_an_output_that_cannot_be_read_is_shown_by_its_end(error: type[Exception]) -> None:
    class Refusing:
        async def run(self, *_: object) -> object:
            raise error("too intricate")

    causes = Causes(cast("Workers", Refusing()))
    cause = await causes.find(uuid4(), ["\x1b[31mred\x1b[0m", "", "last"], "/workspace")
    assert (cause.excerpt, cause.evidence.cause) == ("red\nlast", None)
