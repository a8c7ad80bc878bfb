"""Lessons in launches: remedies in the plan, evidence of failures, and outcomes."""
