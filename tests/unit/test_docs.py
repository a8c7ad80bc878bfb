"""The documentation covers the code: every setting, stage, command, failure code, make target, package and decision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo
from typer.main import get_command

from sandbox.cli.main import app
from sandbox.domain.failures import FAILURE_STAGES
from sandbox.domain.stages import StageName
from sandbox.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"SANDBOX_{name.upper()}")


def row(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "" if default is None else f"`{default}`".replace(str(Path.home()), "~")
    return f"| `{variable(name, field)}` | {shown} | {field.description} |"


def table() -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    return "\n".join(lines + [row(name, field) for name, field in Settings.model_fields.items()])


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    documented = SETTINGS.split("<!-- settings:")[1].split("-->\n", 1)[1].split("\n<!-- /settings -->")[0]
    assert documented == table(), "to update it: .venv/bin/python tests/unit/test_docs.py"


@pytest.mark.parametrize("stage", StageName)
def test_every_stage_is_in_the_picture(stage: StageName) -> None:
    assert stage.value in README.split("## A launch")[1].split("```")[1]


def leaves(command: Any, *path: str) -> Iterator[str]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, *path, name)
    if not hasattr(command, "commands"):
        yield " ".join(path)


@pytest.mark.parametrize("command", [*leaves(get_command(app))])
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`sandbox {command}`" in README.split("## Commands")[1].split("\n## ")[0]


@pytest.mark.parametrize(("code", "stage"), FAILURE_STAGES.items())
def test_every_code_of_a_failed_launch_is_in_the_readme_at_its_stage(code: str, stage: StageName | None) -> None:
    rows = README.split("## When a launch fails")[1].split("\n## ")[0].splitlines()
    (codes,) = (row for row in rows if row.startswith(f"| {stage or 'any'} |"))
    assert f"`{code}`" in codes


def test_every_make_target_is_in_the_readme() -> None:
    rules = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert len(rules) == len(set(rules))
    assert {rule for rule in rules if f"make {rule}" not in README} == {"help", "clean"}


def test_every_package_is_in_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    sources = (p for p in (ROOT / "sandbox").iterdir() if not p.name.startswith("_") and p.suffix in ("", ".py"))
    packages = {f"{p.name}/" if p.is_dir() else p.name for p in sources}
    assert {package for package in packages if f"`{package}`" not in text} == set()


def test_the_index_of_decisions_links_each_record_with_its_title_and_status() -> None:
    folder = ROOT / "docs" / "adr"
    records = sorted(folder.glob("[0-9]*.md"))
    assert [record.name[:3] for record in records] == [f"{number:03}" for number in range(1, len(records) + 1)]
    rows = [row for row in (folder / "README.md").read_text("utf-8").splitlines() if row.startswith("| [")]
    expected = []
    for record in records:
        title, _, status, *_ = record.read_text("utf-8").splitlines()
        assert title.startswith(f"# {record.name[:3]}. ")
        assert status.startswith("Status: ")
        expected.append(f"| [{title[2:]}]({record.name}) | {status.removeprefix('Status: ')} |")
    assert rows == expected


@pytest.mark.parametrize("section", ["Context", "Decision", "Consequences"])
def test_every_decision_has_its_sections(section: str) -> None:
    records = (ROOT / "docs" / "adr").glob("[0-9]*.md")
    assert [record.name for record in records if f"\n## {section}\n" not in record.read_text("utf-8")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


if __name__ == "__main__":  # python tests/unit/test_docs.py rewrites the table of settings
    before, rest = SETTINGS.split("-->\n", 1)
    written = f"{before}-->\n{table()}\n<!-- /settings -->{rest.split('<!-- /settings -->')[1]}"
    (ROOT / "docs" / "settings.md").write_text(written, "utf-8")
