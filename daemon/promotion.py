"""Make a version current because a person says so: promotion and roll-back, from the command line and from the API."""

import getpass
import os
from typing import Literal

from sqlalchemy import Engine

from daemon.paths import LinePaths
from daemon.publish import point_current, verify_folder
from schema.decisions import record_decision
from schema.lines import Line, fetch_line
from schema.versions import fetch_version, promote

Verdict = Literal["promoted_by_hand", "rolled_back"]


class NoSuchVersion(Exception):
    """The line has no version of this number."""


class CurrentAlready(Exception):
    """The version is the current one."""


class Overtaken(Exception):
    """Another version became current meanwhile."""


def make_current(
    engine: Engine, paths: LinePaths, line: Line, version: int, *, verdict: Verdict, actor: str, reason: str
) -> int | None:
    """Check the files of a version, make it current, point the symlink at it; return the version it replaces.

    Raises:
        NoSuchVersion, CurrentAlready: as they say. DamagedVersion: its files are not what was published. Overtaken: the
        line has another current version than `line` says.
    """
    previous = line.current_version
    with engine.connect() as conn:
        row = fetch_version(conn, line.id, version)
    if row is None:
        raise NoSuchVersion(f"line {line.name} has no version {version}")
    if version == previous:
        raise CurrentAlready(f"version {version} is current already")
    verify_folder(paths.version(version), row["manifest_digest"])
    with engine.begin() as conn:
        if not promote(conn, line_id=line.id, version=version, expected=previous, actor=actor, reason=reason):
            raise Overtaken(f"version {previous} was replaced meanwhile: look which is current, and try again")
        inputs = {"version": version, "previous": previous, "actor": actor, "why": reason}
        record_decision(conn, line.id, verdict=verdict, reason="operator", inputs=inputs)
    with engine.connect() as conn:
        now = fetch_line(conn, line.name)
    point_current(paths, now.current_version if now else version)
    return previous


def find_actor() -> str:
    """Return who runs this process, as promotions and jobs record it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
