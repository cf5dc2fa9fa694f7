"""Make what is derived follow the database: the symlink `current`, the state file, what is known to be whole."""

import logging
from typing import Any

from daemon.context import Context, Led
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
