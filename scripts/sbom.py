"""Write bills of materials (CycloneDX 1.5) of the service, its console and the runtimes' images to `dist/sbom`.

uv and npm describe what the service and the console depend on, from their locks. An image is asked for its Debian,
Python and Node.js packages; images that were not built yet are built first.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "dist" / "sbom"
BIN = Path(sys.executable).parent
#: Prints one package for each line in a container: its kind in package URLs, name, version.
LIST = r"""
dpkg-query -W -f '${db:Status-Abbrev}deb/debian ${Package} ${Version}\n' | sed -n 's/^ii *//p'
python3 - <<'END'
import importlib.metadata, json, shutil, subprocess
for found in importlib.metadata.distributions():
    print("pypi", found.metadata["Name"], found.version)
def walk(tree):
    for name, package in tree.get("dependencies", {}).items():
        if "version" in package:
            print("npm", name, package["version"])
        walk(package)
if shutil.which("npm"):
    walk(json.loads(subprocess.run(["npm", "ls", "--global", "--all", "--json"], stdout=subprocess.PIPE).stdout))
END
"""


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    _write("service", _service())
    _write("console", _console())
    for name in [runtime.name for runtime in RuntimeCatalog().list()]:
        image = asyncio.run(RuntimeImages(RuntimeCatalog()).ensure(name, print))
        _write(f"image-{name}", document(image, _output("docker", *_asked(image))))


def _asked(image: str) -> list[str]:
    return ["run", "--rm", "--network", "none", "--user", "1000", "--entrypoint", "sh", image, "-c", LIST]


def _service() -> dict[str, Any]:
    command = "export --frozen --no-dev --quiet --preview-features sbom-export --format cyclonedx1.5"
    return dict(json.loads(_output(str(BIN / "uv"), *command.split())))


def _console() -> dict[str, Any]:
    command = "sbom --sbom-format cyclonedx --package-lock-only --omit dev --prefix"
    return dict(json.loads(_output(str(BIN / "npm"), *command.split(), str(ROOT / "console"))))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def document(image: str, listed: str) -> dict[str, Any]:
    """Return the bill of materials of an image whose packages are listed, one line each."""
    name, _, version = image.rpartition(":")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {"type": "container", "bom-ref": image, "name": name, "version": version},
        },
        "components": list(_components(listed)),
    }


def _components(listed: str) -> Iterator[dict[str, Any]]:
    for line in sorted(set(listed.splitlines())):
        kind, name, version = line.split()
        # The scope of an npm package is a part of the path; its @ is escaped.
        purl = f"pkg:{kind}/{quote(name, safe='/')}@{quote(version, safe='')}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _write(name: str, content: dict[str, Any]) -> None:
    file = TARGET / f"{name}.cdx.json"
    file.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{file.relative_to(ROOT)}: {len(content['components'])} components")


if __name__ == "__main__":
    main()
