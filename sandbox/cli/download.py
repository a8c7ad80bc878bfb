"""`sandbox download`: the files of a session as an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli import output
from sandbox.cli.sessions import Role, Session, find
from sandbox.client import SandboxError
from sandbox.client.packing import EXCLUDED_NAMES


def download(
    ctx: typer.Context,
    session: Session,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where to write the .tar.gz. Default: named after the session, here."),
    ] = None,
    *,
    path: Annotated[str, typer.Option(help="The folder, relative to /workspace.")] = ".",
    role: Role = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what an upload leaves out: node_modules, .venv, .git, caches.")
    ] = False,
) -> None:
    """Download the files of a sandbox as .tar.gz.

    Example: sandbox download 3f2a work.tar.gz
    """
    exclude = frozenset() if everything else EXCLUDED_NAMES
    size, written = output.run(_download(ctx, session, target, path, role, exclude))
    output.out().print(f"{written}: {size / 1000:,.0f} kB")


async def _download(
    ctx: typer.Context, session: str, target: Path | None, path: str, role: str | None, exclude: frozenset[str]
) -> tuple[int, Path]:
    sandbox = await find(output.config_of(ctx), session)
    chosen = target or Path(f"{sandbox.info.project_id or sandbox.session_id[:8]}.tar.gz")
    partial = chosen.with_name(f".{chosen.name}.part")
    try:
        with partial.open("wb") as file:
            size = await sandbox.files.download(file, path, role=role, exclude=exclude)
        partial.replace(chosen)
    except OSError as error:
        raise SandboxError(
            f"{chosen} cannot be written: {error.strerror}", hint="Name another FILE.", code="file_not_written"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
        await sandbox.aclose()
    return size, chosen
