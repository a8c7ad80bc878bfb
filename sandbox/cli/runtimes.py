"""`sandbox runtimes`: the available runtimes and their images."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from sandbox.cli import output
from sandbox.cli.environment import load_settings
from sandbox.cli.output import Json
from sandbox.cli.setup import build_images
from sandbox.errors import EngineError

app = typer.Typer(help="List the runtimes and build their images.", no_args_is_help=True)


@app.command("list")
def list_runtimes(as_json: Json = False) -> None:
    """List the runtimes and whether their images are built.

    Example: sandbox runtimes list
    """
    from sandbox.engine.runtimes import RuntimeCatalog
    from sandbox.images.runtime_images import RuntimeImages

    settings = load_settings()

    async def images() -> dict[str, str | None]:
        known = RuntimeImages(catalog, settings.docker_host)
        try:
            return {runtime.name: await known.reference(runtime.name) for runtime in catalog.list()}
        except EngineError as error:
            output.print_error(error)
            return {}

    catalog = RuntimeCatalog()
    references = output.run(images())
    if as_json:
        items = [
            {"name": r.name, "description": r.description, "base": r.base.image, "image": references.get(r.name)}
            for r in catalog.list()
        ]
        output.print_json({"items": items})
        return
    listing = output.table("RUNTIME", "DESCRIPTION", "IMAGE")
    for runtime in catalog.list():
        image = references.get(runtime.name)
        listing.add_row(runtime.name, Text(runtime.description), Text(image or "not built", "" if image else "yellow"))
    output.out().print(listing)


@app.command("build")
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUNTIME", help="Runtimes to build. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the images that are missing.

    A new folder in runtimes/ adds a runtime.

    Example: sandbox runtimes build python312
    """
    references = output.run(build_images(load_settings(), output.err(), names))
    if as_json:
        output.print_json(references)
