"""What the apps of sessions report by themselves: fetched from their containers, or sent with a session's token."""
