"""The launch stages, one per file. Stages never import each other."""
