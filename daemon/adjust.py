"""Settings that may be changed while the daemon runs: which they are, what they may be, and what holds."""

import json
import logging
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from daemon.config import DaemonSettings
from daemon.context import Context
from monitoring import record
from schema.lines import fetch_line
from schema.setting_changes import fetch_changed, lock_changes, record_change

log = logging.getLogger(__name__)
# When a run starts, on how much, and when one waits. What a run is made of and judged by is not among them: a run keeps
# the settings that it was claimed with, and evaluations of different rounds stay comparable.
CHANGEABLE = frozenset(
    {
        *("check_interval_s", "threshold_rows", "max_rows", "max_run_chars", "replay_share", "back_off_s"),
        *("train_windows", "quiet_hours", "time_zone", "max_age_hours", "max_age_rows", "courtesy_s"),
        *("watch", "watch_releases", "watch_files", "watch_commits", "api_log_days", "api_log_rows"),
    }
)


class UnknownSetting(Exception):
    """There is no setting of that name."""


class FixedSetting(Exception):
    """The setting is not one that may be changed while the daemon runs."""


class NotChanged(Exception):
    """The setting is as it is configured already."""


class WrongValue(Exception):
    """The setting cannot be this, or not beside the others."""


def adjust(configured: DaemonSettings, changed: dict[str, Any]) -> DaemonSettings:
    """Return the configured settings with these changes. Raises WrongValue that names what is wrong and the fix."""
    try:
        return DaemonSettings.model_validate(configured.model_dump() | changed)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise WrongValue("; ".join(map(_describe, found))) from error


def _describe(detail: Any) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return str(message)  # of several settings together; it names them itself
    return f"{detail['loc'][0]}: {message} (given: {detail['input']!r})"


def change_setting(
    conn: Connection,
    line_id: int,
    configured: DaemonSettings,
    name: str,
    value: Any = None,
    *,
    unset: bool = False,
    actor: str,
    reason: str | None,
) -> DaemonSettings:
    """Change a setting, or let the configured value hold again; record it and return what holds then.

    Raises:
        UnknownSetting, FixedSetting, NotChanged, WrongValue: as they say; nothing is changed.
    """
    _check_changeable(name)
    lock_changes(conn, line_id)
    changed = {one.name: one.value for one in fetch_changed(conn, line_id).values()}
    before = changed.get(name, configured.model_dump(mode="json")[name])
    wanted = {other: held for other, held in changed.items() if other != name} | ({} if unset else {name: value})
    now = adjust(configured, wanted)
    after = now.model_dump(mode="json")[name]
    if unset and name not in changed:
        raise NotChanged(f"{name} was not changed at run time: it is {json.dumps(before)}, as configured")
    record_change(conn, line_id, name, value=after, previous=before, is_set=not unset, actor=actor, reason=reason)
    return now


def _check_changeable(name: str) -> None:
    if name not in DaemonSettings.model_fields:
        known = ", ".join(sorted(CHANGEABLE))
        raise UnknownSetting(f"the daemon has no setting {name!r}: these may be changed: {known}")
    if name not in CHANGEABLE:
        raise FixedSetting(f"{name} cannot be changed while the daemon runs: restart it with CODELUPE_{name.upper()}=…")


def take_changes(ctx: Context, conn: Connection, line_id: int) -> None:
    """Put in force what was changed since the last look.

    What does not fit the configuration that the daemon was started with, which may be another one than before, is said
    and left out; everything stays as it was until that is mended.
    """
    changed = {name: change.value for name, change in fetch_changed(conn, line_id).items()}
    if changed == ctx.changed and ctx.live.settings_error is None:
        return
    before = ctx.settings.model_dump(mode="json")
    try:
        ctx.settings, ctx.changed = adjust(ctx.configured, changed), changed
    except WrongValue as error:
        words = f"what was changed at run time does not fit the configuration: {error}"
        if words != ctx.live.settings_error:
            log.error("%s: see `codelupe config history`", words, extra={"event": "settings_refused"})
        ctx.live.settings_error = words
        return
    ctx.live.settings_error = None
    record.record_changed_settings(len(changed), check_interval_s=ctx.settings.check_interval_s)
    for name, value in ctx.settings.model_dump(mode="json").items():
        if value != before[name]:
            told = {"event": "setting_changed", "setting": name, "old": before[name], "new": value}
            log.info("%s is %s now, it was %s", name, value, before[name], extra=told)


def fetch_in_force(conn: Connection, configured: DaemonSettings) -> DaemonSettings:
    """Fetch the settings in force of a line that is configured so. Raises WrongValue where they do not fit."""
    line = fetch_line(conn, configured.line)
    changed = {} if line is None else fetch_changed(conn, line.id)
    return adjust(configured, {name: change.value for name, change in changed.items()})


def say_changes(ctx: Context) -> str:
    """Return what was changed at run time, in words for a decision's inputs."""
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(ctx.changed.items()))
