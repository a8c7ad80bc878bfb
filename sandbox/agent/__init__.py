"""The program that runs inside every container: standard library only, imports nothing of ours."""
