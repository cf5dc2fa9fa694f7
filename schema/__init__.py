"""The tables, and everything that speaks SQL; the embedded PostgreSQL server."""
