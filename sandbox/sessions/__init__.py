"""The lifecycle of sessions: create, read, terminate and recover them; the reconciler, the watcher and expiry."""
