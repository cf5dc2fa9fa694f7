"""`codelupe ingest crawl`: search GitHub and queue what is worth reading."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import sqlalchemy as sa

from ingest.config import Settings
from ingest.github.client import ApiError, BadTokens
from ingest.github.clock import RealClock
from ingest.github.plans import PLANS, Plan
from ingest.github.runs import describe_forecast, describe_report, forecast_crawl, run_crawl
from ingest.github.windows import GITHUB_LANGUAGES
from ingest.serving import Signs
from monitoring.health import ready
from monitoring.logs import setup_logging
from monitoring.progress import Progress
from monitoring.server import create_app, serve
from monitoring.stopping import stop_on_signals
from schema.commands import open_engine


@click.command()
@click.option("--plan", "plan_name", type=click.Choice(PLANS), default=PLANS[0], show_default=True, help="What to ask.")
@click.option(
    "--language",
    "languages",
    type=click.Choice(tuple(GITHUB_LANGUAGES)),
    multiple=True,
    help="Only this language; may be repeated.  [default: the configured ones]",
)
@click.option("--once/--watch", default=True, show_default=True, help="End after one crawl, or crawl again and again.")
@click.option(
    "--dry-run", is_flag=True, help="Ask one question per language, say what a crawl would take, store nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per crawl.")
@click.option("--no-server", is_flag=True, help="Serve no metrics.")
@click.pass_obj
def crawl(
    settings: Settings,
    plan_name: str,
    languages: tuple[str, ...],
    once: bool,
    dry_run: bool,
    as_json: bool,
    no_server: bool,
) -> None:
    """Search GitHub for repositories, score them, and queue those that are worth reading.

    The first crawl of a language asks for everything, later ones for what was pushed since. One that was broken off
    goes on where it was. Exits with 1 when GitHub accepts no token.
    """
    plan = Plan(plan_name, languages or tuple(name for name in settings.ingest.languages if name in GITHUB_LANGUAGES))
    stop = threading.Event()
    clock = RealClock(stop)
    setup_logging(level=settings.monitoring.log_level)
    with stop_on_signals(stop):
        if dry_run:
            try:
                report = forecast_crawl(settings.ingest, plan, clock)
            except ApiError as error:
                raise click.ClickException(str(error)) from error
            click.echo(json.dumps(report) if as_json else "\n".join(describe_forecast(report)))
            return
        with (
            open_engine(settings, application_name="codelupe crawl") as engine,
            Progress(every_s=settings.monitoring.progress_every_s) as progress,
            _serve(settings, engine, enabled=not no_server) as signs,
        ):
            _crawl(settings, engine, plan, clock, progress, signs, once=once, as_json=as_json)


def _crawl(
    settings: Settings,
    engine: sa.Engine,
    plan: Plan,
    clock: RealClock,
    progress: Progress,
    signs: Signs,
    *,
    once: bool,
    as_json: bool,
) -> None:
    while not clock.is_stopped():
        started = clock.now()
        try:
            report = run_crawl(engine, settings.ingest, plan, clock, progress=progress, alive=signs.alive)
        except BadTokens as error:
            raise click.ClickException(str(error)) from error
        click.echo(json.dumps(report, default=str) if as_json else "\n".join(describe_report(report)))
        if once:
            return
        until = started + settings.ingest.crawl_interval_h * 3600
        while (left_s := until - clock.now()) > 0 and not clock.wait(min(left_s, 5.0)):
            signs.alive()


@contextmanager
def _serve(settings: Settings, engine: sa.Engine, *, enabled: bool) -> Iterator[Signs]:
    """Serve /health, /ready, /metrics and /status of the crawler."""
    signs = Signs(engine)
    if not enabled:
        yield signs
        return
    app = create_app(health=signs.health, ready=lambda: ready(signs.facts()), status=signs.show_status)
    monitoring = settings.monitoring
    server = serve(app, monitoring.host, monitoring.crawl_port, port_setting="CODELUPE_CRAWL_PORT")
    try:
        yield signs
    finally:
        server.close()
