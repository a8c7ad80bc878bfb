"""The guest agent, the program that runs inside every container. It uses the standard library only.

The folder is the program: `python3 -I -S /opt/sandbox-agent serve` runs it. `main.py` has its commands and `routes.py`
the functions that it serves.
"""
