"""The API under /v1: what may be asked for, by whom, and how it is answered. Flask is only in app.py."""
