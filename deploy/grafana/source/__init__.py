"""The dashboards as Python: one file for each, and panels.py for what they share. `__main__.py` writes the JSON."""
