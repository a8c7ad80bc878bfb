"""The documented questions, asked by name."""
