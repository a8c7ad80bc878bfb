"""What the database says of sessions against what the engine has, and how the two are brought together."""
