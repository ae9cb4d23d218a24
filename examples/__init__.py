"""Agents to look at, to start and to test with."""
