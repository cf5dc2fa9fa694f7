"""A forecast as people read it."""

from dataclasses import asdict

from rich.table import Table

from daemon.plan import Plan


def render(forecast: Plan) -> Table:
    """Return a forecast as a table for people."""
    table = Table("", "forecast", title="The next run", title_justify="left")
    figures = {
        "rows": f"{forecast.rows:,} ({forecast.chars:,} characters)",
        "tokens": f"{forecast.tokens:,}",
        "steps": f"{forecast.steps:,}, with {forecast.evaluations} evaluations",
        **({"passes": _say_passes(forecast)} if forecast.num_layers is not None else {}),
        "memory": f"{_gib(forecast.peak_bytes)} of {_gib(forecast.memory_limit_bytes)}",
        **{f"  {part}": _gib(size) for part, size in (asdict(forecast.memory) if forecast.memory else {}).items()},
        "disk": _gib(forecast.disk_bytes),
        "hours": f"{forecast.hours:.2f}",
        **{f"  {part}": f"{seconds / 3600:.2f}" for part, seconds in forecast.seconds.items() if seconds},
        **{f"assumed {number}": text for number, text in enumerate(forecast.assumptions, 1)},
        **{f"problem {number}": text for number, text in enumerate(forecast.problems, 1)},
    }
    for name, text in figures.items():
        table.add_row(name, text)
    return table


def _say_passes(forecast: Plan) -> str:
    devices = f" on each of {forecast.num_devices} devices" if forecast.num_devices > 1 else ""
    return (
        f"{forecast.accumulation} of {forecast.micro_batch} sequences a step{devices}, {forecast.checkpointed_layers} "
        f"of {forecast.num_layers} layers recomputed"
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
