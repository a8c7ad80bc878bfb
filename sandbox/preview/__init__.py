"""The preview proxy: a session's app by host name."""
