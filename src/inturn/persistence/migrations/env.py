"""What Alembic runs before the steps; connection and names come from `inturn.persistence.schema`."""

from __future__ import annotations

from alembic import context

from inturn.errors import ConfigurationError

given = context.config.attributes
if "connection" not in given:
    raise ConfigurationError("these migrations are run by `inturn db upgrade`, or inturn.persistence.schema")

context.configure(
    connection=given["connection"],
    version_table=given["version_table"],
    version_table_schema=given["schema"],
)
with context.begin_transaction():
    context.run_migrations()
