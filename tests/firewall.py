"""Removes the egress rules of deployments that tests made."""

from __future__ import annotations

import shutil
import subprocess
from uuid import UUID

from sandbox.engine.docker.firewall import table_name


def remove_rules(deployment_id: UUID) -> None:
    """Remove the deployment's table, if there is one."""
    if shutil.which("nft"):
        subprocess.run(["nft", "delete", "table", "inet", table_name(deployment_id)], capture_output=True, check=False)
