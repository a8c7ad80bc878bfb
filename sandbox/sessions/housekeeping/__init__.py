"""What one replica does for all every few seconds: expiry, and the sweep of what belongs to nobody."""
