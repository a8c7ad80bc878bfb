"""Runtime images: built from `runtimes/` and stored on the engine."""
