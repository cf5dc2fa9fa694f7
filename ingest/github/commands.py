"""`codelupe ingest crawl`: search GitHub and queue what is worth reading."""

import datetime as dt
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import click
import sqlalchemy as sa

from ingest.alive import wait_alive
from ingest.config import Settings
from ingest.github.answers import ApiError
from ingest.github.clock import RealClock, Stopped
from ingest.github.plans import PLANS, Plan
from ingest.github.reports import describe_forecast, describe_report, forecast_crawl
from ingest.github.runs import run_crawl
from ingest.github.windows import GITHUB_LANGUAGES
from ingest.opt_outs import read_patterns
from ingest.serving import Signs
from ingest.sources import SourceError
from monitoring.health import ready
from monitoring.logs import setup_logging
from monitoring.progress import Progress
from monitoring.server import create_app, serve
from monitoring.stopping import stop_on_signals, until_stopped
from schema.commands import connect_engine, open_engine, prepare_tables
from schema.database import fetch_now, outlast
from schema.stalls import cut_when_stopped

log = logging.getLogger(__name__)


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
    "--dry-run", is_flag=True, help="Ask one question per language, say what a full crawl would take, queue nothing."
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

    The first crawl of a language asks for everything, later ones for what was pushed since; one that was broken off
    goes on where it was. `ingest work` or `up` then reads what is queued.

    Give tokens in CODELUPE_GITHUB_TOKENS (a comma in between) or CODELUPE_GITHUB_TOKENS_FILE: without one a crawl takes
    three times as long. GitHub's limits are obeyed by all processes with the same tokens on this database. What counts
    as worth reading is set by min_stars, min_forks, min_repository_score, min_repository_age_days, min_owner_age_days,
    max_repository_kb, force_include, force_exclude and opt_out; of these only opt_out binds what you add yourself.

    The summary counts what is new (queued, refused) or known, and names the windows of which GitHub does not show all.
    Exits with 1 when GitHub accepts no token or a setting is not usable, with 0 after a stop: the next crawl goes on.
    """
    plan = Plan(plan_name, languages or tuple(name for name in settings.ingest.languages if name in GITHUB_LANGUAGES))
    if not plan.languages:
        raise click.UsageError(f"none of the configured languages can be searched for: {', '.join(GITHUB_LANGUAGES)}")
    stop = threading.Event()
    clock = RealClock(stop)
    setup_logging(level=settings.monitoring.log_level, file=settings.home / "logs" / "crawler.log")
    try:
        read_patterns(settings.ingest.opt_out)
        with stop_on_signals(stop):
            if dry_run:
                _forecast(settings, plan, clock, as_json=as_json)
            else:
                _serve_crawl(settings, plan, clock, stop, once=once, as_json=as_json, no_server=no_server)
    except Stopped:
        return
    except (SourceError, ApiError) as error:
        raise click.ClickException(str(error)) from error


def _forecast(settings: Settings, plan: Plan, clock: RealClock, *, as_json: bool) -> None:
    with open_engine(settings, application_name="codelupe crawl") as engine:
        clock.agree(_fetch_now(engine))
        report = forecast_crawl(engine, settings.ingest, plan, clock)
    click.echo(json.dumps(report) if as_json else "\n".join(describe_forecast(report)))


def _serve_crawl(
    settings: Settings,
    plan: Plan,
    clock: RealClock,
    stop: threading.Event,
    *,
    once: bool,
    as_json: bool,
    no_server: bool,
) -> None:
    """Crawl once or again and again; a database that is away, now or later, is waited for."""
    with Progress(every_s=settings.monitoring.progress_every_s) as progress, ExitStack() as stack:
        connected = connect_engine(settings, "codelupe crawl")
        engine = until_stopped(stop, lambda: stack.enter_context(connected))
        if engine is None:
            return
        signs = stack.enter_context(_serve(settings, engine, enabled=not no_server))
        stack.enter_context(cut_when_stopped(engine, stop))
        prepare = partial(prepare_tables, settings, engine)
        if not until_stopped(stop, lambda: outlast(prepare, stop=stop, away=signs.away)):
            return
        signs.alive(database_up=True)

        def run() -> None:
            clock.agree(_fetch_now(engine))
            report = run_crawl(engine, settings.ingest, plan, clock, progress=progress, alive=signs.alive)
            click.echo(json.dumps(report, default=str) if as_json else "\n".join(describe_report(report)))

        interval_s = settings.ingest.crawl_interval_h * 3600
        while True:
            started = clock.now()
            outlast(run, stop=stop, away=signs.away)
            if once or wait_alive(stop, started + interval_s - clock.now(), signs.alive):
                return


def _fetch_now(engine: sa.Engine) -> dt.datetime:
    with engine.begin() as conn:
        return fetch_now(conn)


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
