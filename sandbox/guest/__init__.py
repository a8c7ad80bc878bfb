"""The program that runs inside every container: standard library only, imports nothing of ours.

The folder is the program: `python3 -I -S /opt/sandbox-agent serve` runs it. See `main.py` for its commands and
`routes.py` for what it answers.
"""
