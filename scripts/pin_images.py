"""Write the digests of the images that runtimes and docker-compose.yml name beside their tags: `image:tag@sha256:…`.

The container engine asks the registry which digest each tag has now. Run it to pin images, and again to update them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import docker

from sandbox.engine.docker.errors import FOREIGN_ERRORS, translate

ROOT = Path(__file__).resolve().parent.parent
#: A reference with a tag, after `image = "`, `image: `, `FROM ` or `ARG BASE=`; a digest after it is replaced.
_REFERENCE = re.compile(
    r"""(?P<before>^\s*(?:image\s*=\s*"|image:\s+|FROM\s+|ARG\s+BASE=))"""
    r"""(?P<image>[a-z0-9][a-z0-9./_-]*:[A-Za-z0-9][A-Za-z0-9._-]*)(?:@sha256:[0-9a-f]{64})?""",
    re.MULTILINE,
)


def files(root: Path = ROOT) -> list[Path]:
    """The files that name images."""
    runtimes = root / "runtimes"
    of_runtimes = [*runtimes.glob("*/runtime.toml"), *runtimes.glob("*/Dockerfile")]
    return [root / "docker-compose.yml", *sorted(of_runtimes)]


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """Return the text with the digest of each image."""
    return _REFERENCE.sub(lambda it: f"{it['before']}{it['image']}@{digest_of(it['image'])}", text)


def main() -> None:
    digests: dict[str, str] = {}
    with closing(docker.APIClient()) as client:

        def digest_of(image: str) -> str:
            if image not in digests:
                digests[image] = str(client.inspect_distribution(image)["Descriptor"]["digest"])
                print(f"{image}  {digests[image]}")
            return digests[image]

        try:
            changed = {file: pinned(file.read_text(), digest_of) for file in files()}
        except FOREIGN_ERRORS as error:
            sys.exit(f"no digest was changed: {translate(error)}")
    for file, text in changed.items():
        file.write_text(text)


if __name__ == "__main__":
    main()
