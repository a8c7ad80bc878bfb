"""Documents for retrieval, and the memory that agents share."""
