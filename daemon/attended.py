"""A child that a command waits for, showing how far it is; Ctrl-C asks it to stop."""

import threading
from pathlib import Path

import click

from daemon.config import Settings
from daemon.job import Event
from daemon.supervise import Order, read_failure, run_child
from monitoring.progress import Progress, Task
from monitoring.stopping import stop_on_signals

_FIGURES = ("loss", "tokens_per_s", "eta_s", "tokens")


class _Attended:
    """Answers the supervisor: goes on until the operator stops it."""

    def __init__(self, stop: threading.Event, task: Task) -> None:
        self._stop, self._task = stop, task

    def obey(self) -> Order:
        return "stop" if self._stop.is_set() else "go_on"

    def on_event(self, event: Event) -> None:
        if event["event"] == "step":
            figures = {name: event[name] for name in _FIGURES if name in event}
            self._task.update(event["step"], event["total"], **figures)
        elif event["event"] == "plan":
            click.echo(_say_plan(event), err=True)
        elif event["event"] == "eval":
            self._task.update(event["step"], validation_loss=event["loss"], bits_per_byte=event["bits_per_byte"])
        elif event["event"] == "note":
            click.echo(f"{event['note']}: {event['message']}", err=True)


def _say_plan(event: Event) -> str:
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in event["memory"].items() if size)
    return (
        f"{event['micro_batch']} sequences per forward pass, {event['checkpointed_layers']} layers recomputed: "
        f"{_gib(event['planned_bytes'])} of memory as planned ({parts})"
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def run_attended(settings: Settings, verb: str, job_dir: Path, name: str) -> None:
    """Run the child to its end. Raises click.ClickException with its own words, or where it was stopped."""
    stop, daemon = threading.Event(), settings.daemon
    with stop_on_signals(stop), Progress(every_s=settings.monitoring.progress_every_s) as progress:
        child = _Attended(stop, progress.task(name))
        outcome = run_child(verb, job_dir, child, stop_grace_s=daemon.stop_grace_s)
    if outcome == "failed":
        raise click.ClickException(f"{read_failure(job_dir).message} (more in {job_dir / 'child.log'})")
    if outcome != "done":
        raise click.ClickException(f"{name} was {outcome} before its end")
