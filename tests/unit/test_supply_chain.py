"""Bills of materials of images, and digests beside tags."""

from __future__ import annotations

import yaml

from scripts.pin_images import ROOT, files, pinned
from scripts.sbom import document

DIGEST = "sha256:" + "a" * 64


def test_an_images_packages_are_components_with_package_urls() -> None:
    listed = "deb/debian libssl3 3.0.19-1~deb12u1\nnpm @scope/name 1.0.0\npypi uv 0.13.9\npypi uv 0.13.9\n"
    made = document("purple8/node20:abc", listed)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.5")
    assert made["metadata"]["component"] == {
        "type": "container",
        "bom-ref": "purple8/node20:abc",
        "name": "purple8/node20",
        "version": "abc",
    }
    assert [component["purl"] for component in made["components"]] == [
        "pkg:deb/debian/libssl3@3.0.19-1~deb12u1",
        "pkg:npm/%40scope/name@1.0.0",
        "pkg:pypi/uv@0.13.9",
    ]


def test_digests_are_written_beside_tags_and_replaced() -> None:
    text = 'image = "python:3.12-slim"\n    image: postgres:16\nARG BASE=node:20\nFROM python:3.12\nFROM ${BASE} AS x\n'
    once = pinned(text, lambda image: DIGEST)
    assert once.count(f"@{DIGEST}") == 4
    assert f'image = "python:3.12-slim@{DIGEST}"' in once
    other = "sha256:" + "b" * 64
    assert pinned(once, lambda image: other) == once.replace(DIGEST, other)


def test_every_image_of_a_registry_is_found() -> None:
    asked: set[str] = set()

    def digest_of(image: str) -> str:
        asked.add(image.partition(":")[0])
        return DIGEST

    for file in files():
        pinned(file.read_text(), digest_of)
    assert {"python", "node", "postgres", "caddy"} <= asked


def test_updates_are_requested_for_everything_that_is_pinned() -> None:
    entries = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {entry["package-ecosystem"] for entry in entries} >= {"uv", "npm", "docker", "docker-compose"}
    for entry in entries:
        for folder in entry.get("directories", [entry.get("directory")]):
            assert list(ROOT.parent.glob(f"{ROOT.name}{folder.rstrip('/')}")), folder
