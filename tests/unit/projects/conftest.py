"""Small projects defined in tests, and the runtimes they can use."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sandbox.domain.plan import LaunchPlan
from sandbox.projects.manifest import make_plan


@dataclass(frozen=True)
class DictSource:
    """A project given as a dict of its files."""

    texts: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(self.texts))

    def read_text(self, path: str, limit: int = 1 << 20) -> str | None:
        text = self.texts.get(path)
        return text if text is not None and len(text) <= limit else None


@dataclass(frozen=True)
class Rule:
    """The part of a runtime's manifest that detection uses."""

    name: str
    files: tuple[str, ...] = ()
    start: str | None = None
    install: str | None = None

    @property
    def detect(self) -> "Rule":
        return self

    @property
    def commands(self) -> "Rule":
        return self

    def install_command(self, files: set[str]) -> str | None:
        return self.install


RUNTIMES = (
    Rule("node20", ("package.json",), "npm start"),
    Rule("python312", ("main.py",), "python main.py"),
    Rule("go122", ("go.mod",), "go run .", "go mod download"),
)


@pytest.fixture
def plan_of() -> Callable[..., LaunchPlan]:
    def make(files: dict[str, str], runtimes: tuple[Rule, ...] = RUNTIMES) -> LaunchPlan:
        return make_plan(DictSource(files), runtimes)

    return make
