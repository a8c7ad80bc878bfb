"""The launch pipeline: an ordered list of stages, each checkpointed and each safe to run again."""
