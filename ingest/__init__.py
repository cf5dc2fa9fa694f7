"""Fills the tables: sources are queued, visited in boxed child processes, judged and saved."""
