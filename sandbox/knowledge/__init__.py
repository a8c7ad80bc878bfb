"""Documents for retrieval, and the shared memory of the platform's agents."""
