"""Benchmarks: each measures ratios within one run, and prints one line of JSON. See README.md."""
