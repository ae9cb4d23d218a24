"""The fault run: a load of turns through everything that may go wrong, and the count of what came of it."""
