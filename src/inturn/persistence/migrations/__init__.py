"""Changes of the tables' schema, one step a file in `versions`; `inturn.persistence.schema` runs them.

A step runs for PostgreSQL, SQLite, MySQL and MariaDB alike. It looks at what is there and does what is left
to do, for MySQL keeps the half of a step that was interrupted. It names tables as `inturn.persistence.models`
did at its time, and imports nothing from there: that module changes, a step never does.
"""
