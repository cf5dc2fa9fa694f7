"""`codelupe train range-test`: the loss at ever higher learning rates, and the one to train with."""

import json
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from daemon.attended import run_attended
from daemon.config import Settings, TrainingSettings
from daemon.corpus import first_chars
from daemon.device import detect_device
from daemon.files import write_json, write_lines
from daemon.job import JOB, MEMBERS, Job, RateRange
from daemon.material import read_items_of
from daemon.paths import LinePaths
from daemon.rates import Point, suggest
from daemon.reports import as_json, print_json
from monitoring.logs import setup_logging

JOBS = "_range-tests"  # beside the folders of lines, whose names begin with a letter or a digit
_CHARS_PER_TOKEN = 8  # more than any text has
_SHOWN = 20  # lines of the table


@click.command("range-test")
@click.option("--steps", default=100, show_default=True, type=click.IntRange(10), help="Steps from lowest to highest.")
@click.option("--low", default=1e-6, show_default=True, type=click.FloatRange(0, min_open=True), help="Lowest rate.")
@click.option("--high", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Highest rate.")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True),
    help="Folder of text files, or JSON lines with `content`; without it the line's training side in the database.",
)  # fmt: skip
@as_json
@click.pass_obj
def range_test(settings: Settings, steps: int, low: float, high: float, data: Path | None, as_json: bool) -> None:
    """Train a new adapter at rates that rise with every step, and say which one to set. Nothing is kept or claimed."""
    if low >= high:
        raise click.UsageError(f"--low {low:g} is not below --high {high:g}")
    setup_logging(level=settings.monitoring.log_level)
    daemon, parent = settings.daemon, settings.home / "runs" / JOBS
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = LinePaths(settings.home, daemon.line)
    job = Job(
        line=daemon.line,
        run=0,
        kind="adapter",
        seed=daemon.seed,
        settings=TrainingSettings(
            **{name: getattr(daemon, name) for name in TrainingSettings.model_fields} | {"tracker": "none"}
        ),
        device=detect_device(settings.profile).kind,
        base=str(paths.base) if daemon.makes_base else daemon.base_model,
        base_revision=daemon.base_revision,
        base_cache=paths.base_cache,
        rates=RateRange(steps=steps, low=low, high=high),
    )
    wanted = steps * daemon.micro_batch * daemon.accumulation * daemon.sequence_tokens * _CHARS_PER_TOKEN
    with tempfile.TemporaryDirectory(dir=parent) as name:
        job_dir = Path(name)
        with read_items_of(settings, data) as items:
            write_lines(job_dir / MEMBERS, (item.model_dump_json() for item in first_chars(items, wanted)))
        write_json(job_dir / JOB, job.model_dump(mode="json"))
        run_attended(settings, "range_test", job_dir, "range test")
        points = [Point(**point) for point in json.loads((job_dir / "points.json").read_bytes())["points"]]
    _show(points, as_json=as_json)


def _show(points: list[Point], *, as_json: bool) -> None:
    """Print the curve and what it suggests."""
    found = suggest(points)
    if as_json:
        curve = [{"rate": point.rate, "loss": point.loss, "smoothed": point.smoothed} for point in points]
        print_json(
            {"points": curve, "steepest": found.steepest, "diverged": found.diverged, "learning_rate": found.rate}
        )
        return
    table = Table("learning rate", "loss", "smoothed", title="Range test", title_justify="left")
    every = -(-len(points) // _SHOWN)
    for point in points[::every]:
        table.add_row(f"{point.rate:.2e}", f"{point.loss:.4f}", f"{point.smoothed:.4f}")
    Console().print(table)
    steepest = "nowhere" if found.steepest is None else f"at {found.steepest:.1e}"
    diverged = "nowhere" if found.diverged is None else f"at {found.diverged:.1e}"
    click.echo(f"the loss falls fastest {steepest}; it runs away {diverged}")
    if found.rate is None:
        click.echo("nothing to suggest: the loss never fell; try a wider range or more steps")
    else:
        click.echo(f"suggested: CODELUPE_LEARNING_RATE={found.rate:.1e}")
