"""Turns new rows into a better adapter: counts, decides, trains in a child, evaluates, gates, publishes."""
