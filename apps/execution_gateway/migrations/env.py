"""Runs the migrations over the connection that `database.migrate` hands in; there is no alembic.ini."""

from alembic import context

from apps.execution_gateway.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
