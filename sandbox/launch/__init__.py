"""The launch pipeline: an ordered list of stages, each checkpointed, each looking before it acts."""
