"""Keeping and comparing figures of benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.results import Results


def run(**figures: float) -> Results:
    results = Results()
    results.begin("exec")
    for name, value in figures.items():
        results.add(name, value)
    return results


def test_figures_that_differ_notably_from_kept_ones_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kept.json"
    run(ratio=0.2, rate=100.0, gone=1.0).keep(file)
    run(ratio=0.3, rate=110.0, new=1.0).compare(file)
    assert capsys.readouterr().out == "  exec: ratio: 0.200 -> 0.300 (+50%)\n"
    run(ratio=0.21).compare(file)
    assert "no figure differs" in capsys.readouterr().out


def test_keeping_replaces_only_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kept.json"
    other = Results()
    other.begin("files")
    other.add("p50 / p50", 1.0)
    other.add("p50 / p50", 2.0)
    other.keep(file)
    run(ratio=1.0).keep(file)
    other.compare(file)
    assert "no figure differs" in capsys.readouterr().out
    changed = Results()
    changed.begin("files")
    changed.add("p50 / p50", 1.0)
    changed.add("p50 / p50", 4.0)
    changed.compare(file)
    assert capsys.readouterr().out == "  files: p50 / p50 (2): 2.000 -> 4.000 (+100%)\n"
