"""What all tests have: the programs of this environment (node, npm, npx, uvx) come before the machine's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
