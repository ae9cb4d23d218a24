"""The operators' console at `/console`: what sessions, turns and deliveries do, and the ways to step in."""
