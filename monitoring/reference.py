"""Write docs/metrics.md from the list of metrics: `python -m monitoring.reference > docs/metrics.md`."""

import sys

from monitoring.metrics import CATALOGUE

_HEAD = """# Metrics

Made from `monitoring/metrics.py` by `python -m monitoring.reference > docs/metrics.md`; a test says when it is stale.
The daemon serves them on port 8090, ingest on 8091, the crawler on 8092, each at `/metrics`. A gauge is absent until
its process knows it.
Beside these: `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`,
`process_start_time_seconds` and their like, of the process that serves them.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |\n"
        for metric in CATALOGUE
    )
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(render())
