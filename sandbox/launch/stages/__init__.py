"""One launch stage a file; stages never import each other."""
