"""Reads from a failed command's output why it failed.

Every tool has its own shape of error, and there is one file for each family of tools. A reader takes the lines that the
tool itself gives as its reason, as a whole; it does not look for words that sound like an error.
"""
