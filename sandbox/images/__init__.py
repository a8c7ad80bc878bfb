"""Runtime images: built from `runtimes/` and kept on the engine."""
