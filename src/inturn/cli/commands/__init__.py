"""The commands as people see them: options and help, one module for each group. The work is done elsewhere.

Nothing heavy is imported before a command runs, so that help and completion come at once.
"""
