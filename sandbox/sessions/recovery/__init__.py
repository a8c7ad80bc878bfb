"""Compares the sessions in the database with the resources on the engine, and repairs the differences."""
