"""What the monitor shows of a look at a service: a frame for a terminal, and one line where there is none. Pure."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from monitoring.answers import Decision, Gpu, Status, Training, Version
from monitoring.client import Look
from monitoring.progress import Trend, format_duration

_NUM_DECISIONS: Final = 4
_WIDEST_BAR: Final = 40
_GIB: Final = 1 << 30
Row = tuple[str, RenderableType]


def draw_frame(look: Look, now: dt.datetime, width: int) -> RenderableType:
    """Return everything that is known, `width` columns wide; `now` is the time here."""
    head = Text(_describe_service(look), style="cyan", no_wrap=True, overflow="ellipsis")
    # What is wrong is never cut off.
    state = Text(_describe_state(look, now), style="bold red" if look.error else "bold")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    if look.status is not None:
        for name, value in _describe_all(look, look.status, now + dt.timedelta(seconds=look.ahead_s), width):
            grid.add_row(name, value)
    return Group(head, state, grid, *([Text(look.note, style="yellow")] if look.note else []))


def describe_line(look: Look, now: dt.datetime) -> str:
    """Return the same in one line: what it does, how far it is, and what waits."""
    if look.error or look.status is None:
        return _describe_state(look, now)
    status = look.status
    loss = _describe_loss(status)
    parts = [_describe_state(look, now), *_describe_progress(status), f"loss {loss}" if loss else ""]
    parts += [_describe_time(status, now + dt.timedelta(seconds=look.ahead_s)), _describe_backlog(status)]
    return ", ".join(part for part in [*parts, _describe_version(status.current_version)] if part)


def state_of(look: Look) -> tuple[object, ...]:
    """Return what is worth a line at once: whether it answers, and everything but the figures of a step."""
    status = look.status
    if look.error or status is None:
        return (look.error,)
    return ("", status.run, status.training.phase, status.decision, status.paused, status.current_version)


def _describe_service(look: Look) -> str:
    status = look.status
    return look.url if status is None else f"codelupe {status.line}, {status.profile} on {status.device}, {look.url}"


def _describe_state(look: Look, now: dt.datetime) -> str:
    """Return in a sentence what the service does, or that it is silent."""
    if look.error and look.silent_since is not None:
        silent_s = max(0.0, (now - look.silent_since).total_seconds())
        return f"no answer for {format_duration(silent_s)}, asking on: {look.error}"
    status = look.status
    if status is None:
        return "asking …"
    paused = " (paused)" if status.paused else ""
    if status.run is not None:
        name = "base model" if status.run.kind == "base" else f"run {status.run.number}"
        phase = status.training.phase
        return f"{name}: {_words(status.run.state)}{f', {_words(phase)}' if phase else ''}{paused}"
    if status.decision is not None:
        return f"{_words(status.decision.verdict)}: {_words(status.decision.reason)}{paused}"
    return f"no run is open{paused}"


def _describe_all(look: Look, status: Status, now: dt.datetime, width: int) -> Iterator[Row]:
    training = status.training
    if training.total:
        yield "progress", _draw_bar(training.step or 0, training.total, width, *_describe_progress(status))
    facts = {
        "loss": _describe_loss(status),
        "speed": _describe_speed(training),
        "time": _describe_time(status, now),
        "last run": "" if status.last_result is None else status.last_result.summary,
    }
    yield from ((name, Text(words)) for name, words in facts.items() if words)
    for card in status.gpus:
        yield f"GPU {card.gpu}", Text(_describe_gpu(card), style="" if card.up else "bold red")
    if status.needed_rows and (backlog := _describe_backlog(status)):
        fresh = (status.backlog and status.backlog.num_fresh) or 0
        yield "backlog", _draw_bar(fresh, status.needed_rows, width, backlog)
    yield "version", Text(_describe_current(status, now))
    decisions = status.decisions if look.decisions is None else look.decisions.decisions
    for number, one in enumerate(decisions[:_NUM_DECISIONS]):
        yield "decisions" if number == 0 else "", Text(_describe_decision(one))


def _draw_bar(done: int, total: int, width: int, *words: str) -> RenderableType:
    """Return a bar with words behind it; a narrow terminal has the words alone."""
    text = Text(", ".join(words))
    columns = min(_WIDEST_BAR, width - len(text) - len("decisions") - 3)
    if columns < 8:
        return text
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=total, completed=min(done, total), width=columns), text)
    return grid


def _describe_progress(status: Status) -> Iterator[str]:
    training = status.training
    if training.total:
        yield f"{training.step or 0:,}/{training.total:,}"
        yield f"{(training.step or 0) / training.total:.0%}"
    if training.epoch is not None:
        yield f"epoch {training.epoch:.2f}"


def _describe_loss(status: Status) -> str:
    training, trend = status.training, Trend()
    if training.loss is None:
        return ""
    for _, loss in status.curve.train if status.curve else ():
        trend.add(loss)
    words = f"{training.loss:#.5g} {trend.arrow}"
    words += "" if training.smoothed_loss is None else f", mean of 10 steps {training.smoothed_loss:#.5g}"
    return words + ("" if training.eval_loss is None else f", validation {training.eval_loss:#.5g}")


def _describe_speed(training: Training) -> str:
    rate = "" if training.lr is None else f"learning rate {training.lr:.2e}"
    speed = "" if training.tokens_per_s is None else f"{training.tokens_per_s:,.0f} tokens/s"
    return ", ".join(words for words in (rate, speed) if words)


def _describe_time(status: Status, now: dt.datetime) -> str:
    parts = []
    if status.run is not None and status.run.created_at is not None:
        parts.append(f"{_ago(status.run.created_at, now)} elapsed")
    if status.training.eta_s is not None:
        parts.append(f"ETA {format_duration(max(0.0, status.training.eta_s))}")
    return ", ".join(parts)


def _describe_gpu(card: Gpu) -> str:
    if not card.up:
        return f"{card.name} does not answer"
    parts = [card.name] if card.name else []
    if card.utilization_ratio is not None:
        parts.append(f"{card.utilization_ratio:.0%} busy")
    if card.memory_bytes is not None and card.memory_used_bytes is not None:
        parts.append(f"{card.memory_used_bytes / _GIB:.1f}/{card.memory_bytes / _GIB:.1f} GiB")
    if card.temperature_celsius is not None:
        parts.append(f"{card.temperature_celsius:.0f} °C")
    if card.power_watts is not None:
        limit = "" if card.power_limit_watts is None else f"/{card.power_limit_watts:.0f}"
        parts.append(f"{card.power_watts:.0f}{limit} W")
    return ", ".join(parts)


def _describe_backlog(status: Status) -> str:
    if not status.needed_rows or status.backlog is None or status.backlog.num_fresh is None:
        return ""
    words = f"{status.backlog.num_fresh:,} of {status.needed_rows:,} new rows"
    eta_s = status.threshold_eta_s
    return f"{words}, the rest in {format_duration(eta_s)}" if eta_s is not None and eta_s > 0 else words


def _describe_version(version: int | None) -> str:
    return "no version yet" if version is None else f"version {version}"


def _describe_current(status: Status, now: dt.datetime) -> str:
    found = next((one for one in status.versions if one.number == status.current_version), None)
    details = [] if found is None else list(_describe_details(found, now))
    return ", ".join(["none yet" if status.current_version is None else str(status.current_version), *details])


def _describe_details(version: Version, now: dt.datetime) -> Iterator[str]:
    if version.bits_per_byte is not None:
        yield f"{version.bits_per_byte:.4g} bits per byte"
    if version.created_at is not None:
        yield f"made {_ago(version.created_at, now)} ago"


def _describe_decision(one: Decision) -> str:
    at = "" if one.last_at is None else f"{one.last_at.astimezone(dt.UTC):%m-%d %H:%M:%S} UTC "
    times = f" ({one.repeated:,} times)" if one.repeated > 1 else ""
    return f"{at}{_words(one.verdict)}: {_words(one.reason)}{times}"


def _ago(then: dt.datetime, now: dt.datetime) -> str:
    return format_duration(max(0.0, (now - then).total_seconds()))


def _words(name: str) -> str:
    return name.replace("_", " ")
