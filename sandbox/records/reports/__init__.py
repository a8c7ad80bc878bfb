"""Reports as CI makes them: JUnit XML, Cobertura XML, coverage.py JSON."""
