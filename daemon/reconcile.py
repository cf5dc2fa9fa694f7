"""Make what is derived follow the database: the symlink `current`, the state file, what is known to be whole."""

import logging
from pathlib import Path
from typing import Any

from daemon.context import Context, Led
from daemon.files import TEMPORARY, remove
from daemon.paths import LinePaths
from daemon.publish import DamagedVersion, point_current, verify_folder
from daemon.state_file import refresh_state_file
from schema.lines import Line, fetch_line
from schema.summary import fetch_state
from schema.versions import fetch_promotions, fetch_version

log = logging.getLogger(__name__)


def reconcile(led: Led) -> None:
    """Make what is derived follow the database: the symlink, then the state file (I3, I4)."""
    ctx = led.ctx
    with ctx.engine.connect() as conn:
        line = fetch_line(conn, ctx.settings.line)
    if line is None:
        raise RuntimeError(f"line {ctx.settings.line!r} is gone: somebody deleted its row")
    point_current(ctx.paths, line.current_version)
    refresh_state_file(ctx.paths.state_file, show_line(ctx, line))


def sweep_line(paths: LinePaths, open_run: int | None) -> list[Path]:
    """Remove what writers that were killed left half done; return it. This line's only: others may be at work."""
    folders = [paths.models, paths.versions]
    if open_run is not None:
        job = paths.job(open_run)
        folders += [job, job / "adapter", job / "base", job / "checkpoints"]
    left = [path for folder in folders for path in sorted(folder.glob(f"*{TEMPORARY}"))]
    left += sorted(paths.state_file.parent.glob(f"{paths.state_file.name}.*{TEMPORARY}"))
    for path in left:
        remove(path)
    if left:
        names = ", ".join(path.name for path in left)
        log.warning("swept what a killed process left: %s", names, extra={"event": "temporaries_swept"})
    return left


def show_line(ctx: Context, line: Line) -> dict[str, Any]:
    """Show what the line serves, verified anew when that has changed; return the state for the state file."""
    if ctx.live.current_version != line.current_version:
        verify_current(ctx, line)
    with ctx.engine.connect() as conn:
        state = fetch_state(conn, line.id)
    ctx.live.serves(line.current_version, state, num_failures=line.num_failures)
    return state


def verify_current(ctx: Context, line: Line) -> None:
    """Check every file of the current version against its manifest, and show the result."""
    if line.current_version is None:
        return
    with ctx.engine.connect() as conn:
        row = fetch_version(conn, line.id, line.current_version)
        promotions = fetch_promotions(conn, line.id)
    promoted_at_s = max((one["created_at"].timestamp() for one in promotions), default=None)
    damage = None
    try:
        verify_folder(ctx.paths.version(line.current_version), None if row is None else row["manifest_digest"])
    except DamagedVersion as error:
        damage = str(error)
        log.error("the current version is damaged: %s", error, extra={"event": "version_damaged"})
    ctx.live.verified(line.current_version, damage, promoted_at_s)
