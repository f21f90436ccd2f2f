"""Measurements: each module is one command that prints figures and writes them to docs/benchmarks/."""
