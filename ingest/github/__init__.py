"""Finds repositories through GitHub's REST search: windows that hide nothing, a score, and the queue."""
