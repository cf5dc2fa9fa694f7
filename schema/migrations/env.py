"""Run the revisions on the connection, and in the transaction, that `schema.database.upgrade` opened."""

from alembic import context

from schema.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
