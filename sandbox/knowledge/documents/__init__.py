"""Documents for retrieval: read, split into chunks, stored and searched."""
