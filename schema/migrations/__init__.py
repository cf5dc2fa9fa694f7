"""Alembic's revisions, run by `schema.database.upgrade`."""
