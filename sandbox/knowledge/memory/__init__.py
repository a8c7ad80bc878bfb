"""The memory that the platform's agents share."""
