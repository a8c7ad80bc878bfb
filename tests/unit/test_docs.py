"""The documentation says what the code does: a setting, a route or a stage that it does not tell of fails here."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from sandbox.domain.stages import StageName
from sandbox.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"SANDBOX_{name.upper()}")


def row(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "" if default is None else f"`{default}`".replace(str(Path.home()), "~")
    return f"| `{variable(name, field)}` | {shown} | {field.description} |"


def table() -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    return "\n".join(lines + [row(name, field) for name, field in Settings.model_fields.items()])


def test_every_setting_is_in_the_readme_with_its_default_and_meaning() -> None:
    documented = README.split("<!-- settings:")[1].split("-->\n", 1)[1].split("\n<!-- /settings -->")[0]
    assert documented == table(), "write it anew: .venv/bin/python tests/unit/test_docs.py"


@pytest.mark.parametrize("stage", StageName)
def test_every_stage_is_in_the_picture(stage: StageName) -> None:
    assert stage.value in README.split("## A launch")[1].split("```")[1]


def test_every_room_is_in_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = {p.name for p in (ROOT / "sandbox").iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert {room for room in rooms if f"`{room}/`" not in text} == set()


if __name__ == "__main__":  # python tests/unit/test_docs.py: write the table of settings anew
    before, rest = README.split("-->\n", 1)
    (ROOT / "README.md").write_text(f"{before}-->\n{table()}\n<!-- /settings -->{rest.split('<!-- /settings -->')[1]}")
