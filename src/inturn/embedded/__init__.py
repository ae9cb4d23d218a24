"""Servers that inturn starts by itself, for `inturn dev`, `inturn demo` and tests; not for production."""
