"""What one replica does for all every few seconds: expiry, old history, and the sweep of what belongs to nobody."""
