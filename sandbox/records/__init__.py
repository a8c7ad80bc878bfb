"""The platform's records: logs, traces, test results, coverage, agents and alerts."""
