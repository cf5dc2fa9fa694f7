"""The settings that may be changed while the daemon runs, over HTTP: what is answered, and the operations."""

import datetime as dt
from typing import Any, Literal

from daemon.adjust import CHANGEABLE, FixedSetting, NotChanged, UnknownSetting, WrongValue, change_setting
from daemon.api.answers import Out
from daemon.api.calls import Call, Refusal
from schema.setting_changes import Change, fetch_changed


class Setting(Out):
    """A setting that may be changed while the daemon runs."""

    name: str
    """Its name, as in the configuration's section `daemon`."""
    value: bool | int | float | str | list[str] | None
    """What holds."""
    configured: bool | int | float | str | list[str] | None
    """What the daemon was started with: by environment, file, profile or default."""
    source: Literal["configuration", "run_time"]
    """Which of them holds; what was changed at run time does until it is unset."""
    changed_by: str | None
    """Who changed it at run time."""
    changed_at: dt.datetime | None
    """When."""
    reason: str | None
    """Why."""


class Settings(Out):
    """The daemon's settings that may be changed while it runs."""

    line: str
    """Name of the line."""
    settings: list[Setting]
    """By name."""


def list_settings(call: Call) -> Settings:
    """List the settings that may be changed."""
    changed, configured = fetch_changed(call.conn, call.line.id), call.configured.model_dump(mode="json")
    shown = [_show_setting(name, configured[name], changed.get(name)) for name in sorted(CHANGEABLE)]
    return Settings(line=call.line.name, settings=shown)


def _show_setting(name: str, configured: Any, change: Change | None) -> Setting:
    return Setting(
        name=name,
        value=configured if change is None else change.value,
        configured=configured,
        source="configuration" if change is None else "run_time",
        changed_by=None if change is None else change.actor,
        changed_at=None if change is None else change.created_at,
        reason=None if change is None else change.reason,
    )


def set_setting(call: Call) -> Settings:
    """Change a setting."""
    return _adjust(call, value=call.body.value, reason=call.body.reason)


def unset_setting(call: Call) -> Settings:
    """Let the configured value hold again."""
    return _adjust(call, unset=True, reason=call.query.reason)


def _adjust(call: Call, **change: Any) -> Settings:
    name, actor = call.path.name, f"api:{call.caller}"
    try:
        change_setting(call.conn, call.line.id, call.configured, name, actor=actor, **change)
    except UnknownSetting as error:
        raise Refusal(404, "no-such-setting", str(error)) from error
    except FixedSetting as error:
        raise Refusal(409, "fixed-setting", str(error)) from error
    except NotChanged as error:
        raise Refusal(409, "not-changed", str(error)) from error
    except WrongValue as error:
        errors = [{"where": "body.value", "message": str(error)}]
        raise Refusal(422, "wrong-value", str(error), errors=errors) from error
    return list_settings(call)
