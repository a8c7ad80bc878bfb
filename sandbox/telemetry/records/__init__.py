"""Logs, traces, test results and coverage: what is written down and how it is asked for."""
