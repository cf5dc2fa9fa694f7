"""`codelupe monitor`: follow a service in the terminal, here or on another machine."""

import contextlib
import datetime as dt
import json
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

import click
from rich.console import Console
from rich.live import Live

from monitoring.client import Look, Service, check_url
from monitoring.config import MonitoringSettings
from monitoring.frame import describe_line, draw_frame, state_of
from monitoring.stopping import stop_on_signals, until_stopped
from monitoring.terminal import console_on

_REDRAW_S: Final = 0.25


class _Settings(Protocol):
    @property
    def monitoring(self) -> MonitoringSettings: ...


@click.command()
@click.argument("url", required=False)
@click.option("--once", is_flag=True, help="Show one frame and end; exit status 1 where nobody answers.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document, one line, for every change.")
@click.option("--every", "every_s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, metavar="S")
@click.pass_obj
def monitor(settings: _Settings, url: str | None, once: bool, as_json: bool, every_s: float) -> None:
    """Follow the daemon at URL (default: the one on this machine), asking every S seconds, until `q` or Ctrl-C.

    An outage of the service is shown, and asked on. Without a terminal there is a line at every change of state and,
    while a run is under way, every `progress_every_s` seconds. A service on another machine wants a token with the
    scope `read`: CODELUPE_API_TOKEN_FILE names the file with it.
    """
    try:
        where = check_url(f"http://127.0.0.1:{settings.monitoring.daemon_port}" if url is None else url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    token = settings.monitoring.api_token
    service = partial(Service, where, None if token is None else token.get_secret_value())
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without arrows is no error
    console, stop = console_on(sys.stdout), threading.Event()
    if once:
        _show_once(service, console, as_json=as_json)
    elif as_json:
        until_stopped(stop, lambda: _print_changes(service, stop, every_s))
    elif console.is_terminal and not console.is_dumb_terminal:
        _draw(Look(where), service, console, stop, every_s)
    else:
        until_stopped(stop, lambda: _print_lines(service, stop, every_s, settings.monitoring.progress_every_s))


def _show_once(open_service: Callable[[], Service], console: Console, *, as_json: bool) -> None:
    """Show one look; exit with 1 where nobody answers."""
    with open_service() as service:
        look = service.look()
    if as_json:
        click.echo(_as_json(look))
    else:
        console.print(draw_frame(look, _now(), console.width))
    if look.error:
        sys.exit(1)


def _follow(open_service: Callable[[], Service], stop: threading.Event, every_s: float) -> Iterator[Look]:
    """Yield a look every so many seconds until the stop."""
    with open_service() as service:
        while not stop.is_set():
            yield service.look()
            stop.wait(every_s)


def _print_changes(service: Callable[[], Service], stop: threading.Event, every_s: float) -> None:
    """Print each look that says something new."""
    before = ""
    for look in _follow(service, stop, every_s):
        if (news := _as_json(look, timeless=True)) != before:
            click.echo(_as_json(look))
        before = news


def _as_json(look: Look, *, timeless: bool = False) -> str:
    """Return a look in one line; `timeless` without what changes while nothing happens."""
    said = look.said or {"status": None, "decisions": None}
    if timeless and said["status"]:
        said = {**said, "status": {**said["status"], "uptime_s": None}}
    at = {} if timeless else {"at": _now().isoformat(timespec="seconds")}
    return json.dumps({**at, "url": look.url, "error": look.error or None, "note": look.note or None, **said})


def _print_lines(
    service: Callable[[], Service], stop: threading.Event, every_s: float, progress_every_s: float
) -> None:
    """Print a line when the state changes, and when a newer figure is due."""
    state, shown, printed_s = None, "", 0.0
    for look in _follow(service, stop, every_s):
        line, is_due = describe_line(look, _now()), time.monotonic() - printed_s >= progress_every_s
        if state_of(look) != state or (is_due and line != shown):
            click.echo(f"{_now():%H:%M:%S} UTC {line}")
            state, shown, printed_s = state_of(look), line, time.monotonic()


def _draw(first: Look, service: Callable[[], Service], console: Console, stop: threading.Event, every_s: float) -> None:
    """Draw until `q` or a signal; a thread asks, so that neither waits for a service that does not answer."""
    looks = [first]

    def follow() -> None:
        for look in _follow(service, stop, every_s):
            looks[0] = look

    thread = threading.Thread(target=follow, name="follower", daemon=True)
    with stop_on_signals(stop), _keys() as wait_for_key, Live(console=console, auto_refresh=False) as live:
        thread.start()
        while not stop.is_set():
            live.update(draw_frame(looks[0], _now(), console.width), refresh=True)
            if wait_for_key(_REDRAW_S) in (b"q", b"Q"):
                stop.set()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _wait_without_keys(seconds: float) -> bytes:
    time.sleep(seconds)
    return b""


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Yield what waits so many seconds for a key; the terminal gives each at once, unseen, until the end."""
    if not sys.stdin.isatty():
        yield _wait_without_keys
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def wait(seconds: float) -> bytes:
        ready, _, _ = select.select([number], [], [], seconds)
        return os.read(number, 1) if ready else b""

    tty.setcbreak(number, termios.TCSANOW)
    try:
        yield wait
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)
