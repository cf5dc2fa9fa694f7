"""What the daemon answers at /health, /ready and /status: from memory alone, within milliseconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daemon.config import Settings
from daemon.context import Context
from monitoring.gpu import show_gpus
from monitoring.health import Facts, assess, ready

# A loop that gives no sign of life for this many intervals (and never sooner than a minute) is stuck.
_SILENT_INTERVALS = 4
_SILENT_AT_LEAST_S = 60.0


@dataclass(slots=True)
class Reporter:
    """Answers the HTTP server."""

    ctx: Context
    settings: Settings
    board: Callable[[], dict[str, Any]] = dict
    """What there is to show of the database, without waiting for it."""
    _started: float = field(default_factory=time.monotonic)

    def health(self) -> dict[str, Any]:
        """Return the answer of /health."""
        return {**assess(self._facts()).to_json(), **self._details()}

    def ready(self) -> tuple[bool, list[str]]:
        """Return the answer of /ready."""
        return ready(self._facts())

    def status(self) -> dict[str, Any]:
        """Return the answer of /status: what it does now, live figures, and the configuration without secrets."""
        return {
            "line": self.ctx.settings.line,
            "profile": self.settings.profile,
            "device": self.ctx.device.name,
            "uptime_s": round(time.monotonic() - self._started, 1),
            **self.ctx.live.snapshot(),
            "curve": self.ctx.live.show_curve(),
            **self.board(),
            "gpus": show_gpus(),
            "config": {
                "home": str(self.settings.home),
                "daemon": self.ctx.settings.model_dump(mode="json"),
                "changed_at_run_time": sorted(self.ctx.changed),
                "monitoring": self.settings.monitoring.model_dump(mode="json"),
                "database": self.settings.database.model_dump(mode="json"),  # the URL is a SecretStr: masked
            },
        }

    def _facts(self) -> Facts:
        live, settings = self.ctx.live, self.ctx.settings
        last = live.last_tick
        return Facts(
            database_up=live.database_error is None,
            # The start waits for the database as long as it takes; only the loop can be stuck.
            silent_s=0.0 if last is None else time.monotonic() - last,
            max_silent_s=max(_SILENT_AT_LEAST_S, _SILENT_INTERVALS * settings.check_interval_s),
            started=last is not None,
            current_version=live.current_version,
            version_verified=live.damage is None,
            last_trained_id=live.state.get("last_trained_id"),
            failures_in_a_row=live.num_failures,
            rows_unaccounted=live.rows_unaccounted,
            paused=live.decision == ("wait", "paused"),
            lease_held=live.leading,
            step_failing=live.step_error is not None,
            does_not_fit=live.misfit is not None,
            settings_refused=live.settings_error is not None,
        )

    def _details(self) -> dict[str, Any]:
        """Return the words behind the reasons, where there are any."""
        live = self.ctx.live
        words = {
            "database": live.database_error,
            "step": live.step_error,
            "settings": live.settings_error,
            "memory": live.misfit,
            "version": live.damage,
            "last_failure": live.last_failure,
        }
        details = {name: text for name, text in words.items() if text}
        return {"details": details} if details else {}
