"""purple8-sandbox: generated projects as live, previewable sandboxes, and the record of what happened around them."""

from importlib.metadata import version

__version__ = version("purple8-sandbox")
