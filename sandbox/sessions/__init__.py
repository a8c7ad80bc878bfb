"""Sessions: create, get, list, terminate; the reconciler; expiry."""
