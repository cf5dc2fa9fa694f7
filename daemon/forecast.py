"""`codelupe plan`: what the next run will take, before it takes it."""

import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from sqlalchemy import Connection

from daemon.adjust import fetch_in_force
from daemon.config import Settings
from daemon.device import detect_device
from daemon.memory import profile_memory_bytes
from daemon.paths import LinePaths
from daemon.plan import PlanFacts
from daemon.plan import plan as make_plan
from daemon.plan_table import render
from daemon.reports import as_json, print_json
from daemon.samples import chars_per_token, load_tokenizer
from daemon.shapes import find_shape
from schema.commands import open_engine
from schema.lines import fetch_line
from schema.runs import Limits, count_split, fetch_held_out, fetch_runs
from schema.summary import sum_pending

_NONE = {"rows": 0, "units": 0, "chars": 0}
_NUM_RUNS = 20
_SAMPLE_CHARS = 200_000


@click.command()
@as_json
@click.pass_obj
def plan(settings: Settings, as_json: bool) -> None:
    """Forecast the next run: rows, tokens, steps, evaluations, memory, disk, hours; exits with 1 if it cannot work."""
    with open_engine(settings) as engine, closing(engine.connect()) as conn:
        facts = gather_plan_facts(conn, settings)
        daemon = fetch_in_force(conn, settings.daemon)
    forecast = make_plan(facts, daemon)
    if as_json:
        print_json(forecast.to_json())
    else:
        Console().print(render(forecast))
    sys.exit(1 if forecast.problems else 0)


def gather_plan_facts(conn: Connection, settings: Settings) -> PlanFacts:
    """Return what the forecast rests on; a line that is not open yet has nothing."""
    daemon = fetch_in_force(conn, settings.daemon)
    kind, memory_bytes = _device(settings.profile)
    line = fetch_line(conn, daemon.line)
    limits = Limits(daemon.min_quality, daemon.min_chars, max_chars_total=None, max_rows=daemon.max_rows)
    rows, chars = (0, 0) if line is None else sum_pending(conn, line.id, limits)
    splits = {} if line is None else count_split(conn, line.id, limits)
    settings.home.mkdir(parents=True, exist_ok=True)
    return PlanFacts(
        num_rows=rows,
        num_chars=chars,
        test_units=splits.get("test", _NONE)["units"],
        test_chars=splits.get("test", _NONE)["chars"],
        validation_units=splits.get("validation", _NONE)["units"],
        shape=find_shape(daemon),
        device=kind,
        memory_bytes=memory_bytes,
        disk_free_bytes=shutil.disk_usage(Path(settings.home)).free,
        chars_per_token=None if line is None else _measure_tokens(conn, line.id, settings, limits),
        tokens_per_s=None if line is None else _last_speed(conn, line.id),
        has_incumbent=line is not None and line.current_version is not None,
        needs_base=daemon.makes_base and (line is None or line.tokenizer_digest is None),
    )


def _device(profile: str) -> tuple[Literal["cpu", "cuda"], int]:
    """Return the kind and memory of the card that the profile is for, here or not, else of what is here."""
    card_bytes = profile_memory_bytes(profile)
    if card_bytes is not None:
        return "cuda", card_bytes
    device = detect_device(profile)
    return device.kind, device.memory_bytes


def _measure_tokens(conn: Connection, line_id: int, settings: Settings, limits: Limits) -> float | None:
    """Return the characters per token of a few held-out files, where the line's tokenizer lies on this machine."""
    base = LinePaths(settings.home, settings.daemon.line).base
    if not settings.daemon.makes_base or not (base / "tokenizer.json").is_file():
        return None
    members = fetch_held_out(conn, line_id, "validation", limits=limits, max_chars=_SAMPLE_CHARS)
    texts = [member.content for member in members if member.content]
    return chars_per_token(load_tokenizer(str(base)), texts) if texts else None


def _last_speed(conn: Connection, line_id: int) -> float | None:
    """Return the tokens per second of the newest adapter run that measured them."""
    for run in fetch_runs(conn, line_id, limit=_NUM_RUNS):
        speed = run.figures.get("training", {}).get("tokens_per_s")
        if run.kind != "base" and speed:
            return float(speed)
    return None
