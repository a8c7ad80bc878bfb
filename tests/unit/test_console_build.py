"""`scripts/console.py`, which builds the web console, and the lock of its packages."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, working on a small console of its own, whose `npm` is replaced by a note of what is run."""
    spec = importlib.util.spec_from_file_location("console", ROOT / "scripts" / "console.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source, built = tmp_path / "console", tmp_path / "built"
    (source / "src").mkdir(parents=True)
    for name in ("index.html", "package.json", "package-lock.json", "vite.config.ts", "src/main.tsx"):
        (source / name).write_text(name)
    monkeypatch.setattr(module, "SOURCE", source)
    monkeypatch.setattr(module, "BUILT", built)
    ran: list[tuple[str, ...]] = []

    def npm(*arguments: str) -> None:
        ran.append(arguments)
        if arguments[0] == "ci":
            (source / "node_modules").mkdir(exist_ok=True)
        elif "vite" in arguments:
            (built / "assets").mkdir(parents=True, exist_ok=True)
            (built / "index.html").write_text("page")
            for name, length in (("a.js", 1000), ("b.js", 2000), ("late.js", 400_000), ("a.css", 500)):
                (built / "assets" / name).write_bytes(os.urandom(length))
            (built / "manifest.json").write_text(json.dumps(MANIFEST))

    monkeypatch.setattr(module, "npm", npm)
    module.ran = ran  # type: ignore[attr-defined]  # a module takes any attribute
    return module


MANIFEST = {
    "index.html": {"file": "assets/a.js", "css": ["assets/a.css"], "imports": ["_b"], "dynamicImports": ["late"]},
    "_b": {"file": "assets/b.js"},
    "late": {"file": "assets/late.js"},
}


def test_nothing_is_built_again_while_nothing_changed(script: ModuleType) -> None:
    script.main([])
    assert [arguments[0] for arguments in script.ran] == ["ci", "exec"]
    script.main([])
    (script.SOURCE / "src" / "main.test.ts").write_text("a test is not part of the build")
    script.main([])
    assert len(script.ran) == 2


@pytest.mark.parametrize("name", ["src/main.tsx", "index.html", "vite.config.ts"])
def test_a_changed_source_is_built_without_installing_again(script: ModuleType, name: str) -> None:
    script.main([])
    (script.SOURCE / name).write_text("changed")
    script.main([])
    assert [arguments[0] for arguments in script.ran] == ["ci", "exec", "exec"]


def test_a_changed_lock_is_installed(script: ModuleType) -> None:
    script.main([])
    (script.SOURCE / "package-lock.json").write_text("changed")
    script.main([])
    assert [arguments[0] for arguments in script.ran] == ["ci", "exec", "ci", "exec"]


def test_a_build_that_was_interrupted_is_done_again(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    script.main([])
    (script.SOURCE / "src" / "main.tsx").write_text("changed")

    def interrupted(*_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(script, "npm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            script.main([])
    script.main([])
    assert [arguments[0] for arguments in script.ran] == ["ci", "exec", "exec"]


def test_the_first_load_counts_what_the_page_imports_at_once(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([])
    # Random bytes do not get smaller.
    assert 3500 < script.first_load() < 3700
    assert "first load is 3." in capsys.readouterr().out
    (script.SOURCE / "src" / "main.tsx").write_text("changed")
    monkeypatch.setattr(script, "FIRST_LOAD_LIMIT", 3000)
    with pytest.raises(SystemExit, match="too large"):
        script.main([])
    assert not (script.BUILT / script.STAMP).exists()


def test_the_lock_names_no_other_registry_and_has_a_hash_of_every_package() -> None:
    text = (ROOT / "console" / "package-lock.json").read_text("utf-8")
    hosts = set(re.findall(r'"resolved": "(\w+://[^/"]+)', text))
    assert hosts <= {"https://registry.npmjs.org"}
    packages = json.loads(text)["packages"]
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []


def test_versions_are_exact() -> None:
    package = json.loads((ROOT / "console" / "package.json").read_text("utf-8"))
    versions = package["dependencies"] | package["devDependencies"]
    assert [name for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
