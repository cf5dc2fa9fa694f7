"""PostgreSQL as a foreground child: start, wait until it is ready, stop."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schema.cluster import NO_NAMESPACE, Binaries, clean_environment, run_program
from schema.places import PORT, EmbeddedError, Places
from schema.unprivileged import die_with_parent

_PROGRESS_EVERY_S = 5.0
_STOP_TIMEOUT_S = 45.0
_LOG_MAX_BYTES = 10 * 1024 * 1024

# What differs from PostgreSQL's own defaults: one machine, one application, private sockets only.
_OPTIONS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "cluster_name": "codelupe",
    "max_connections": "40",
    "shared_buffers": "128MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "5min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %a ",
}


@dataclass(slots=True)
class Postgres:
    """One PostgreSQL, the foreground child of this process."""

    binaries: Binaries
    data: Path
    places: Places
    lock_fd: int
    options: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `wait_ready` follows."""
        _remove_stale_pid_file(self.data)
        self.limit_log()
        with self.places.server_log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=clean_environment(),
                    pass_fds=(self.lock_fd,),
                    preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - there is one thread
                )
            except subprocess.SubprocessError as error:
                raise EmbeddedError(NO_NAMESPACE) from error

    def _command(self) -> list[str | Path]:
        options = _OPTIONS | {"unix_socket_directories": f'"{self.places.sockets}"'}
        options |= {"default_toast_compression": "lz4"} if self._has_lz4() else {}
        options |= self.options
        return [self.binaries.folder / "postgres", "-D", self.data, *(f"--{k}={v}" for k, v in options.items())]

    def _has_lz4(self) -> bool:
        """Ask the server itself: a build without lz4 refuses the value."""
        name = "default_toast_compression"
        with contextlib.suppress(EmbeddedError):
            run_program([self.binaries.folder / "postgres", "-D", self.data, "-C", name, f"--{name}=lz4"])
            return True
        return False

    def wait_ready(self, progress: Callable[[str], None], is_stopped: Callable[[], bool]) -> None:
        """Wait until it takes connections, however long crash recovery needs; `progress` hears of it every 5 s.

        Raises:
            EmbeddedError: it ended instead.
        """
        started = told = time.monotonic()
        while not self.is_ready() and not is_stopped():
            if not self.is_running():
                raise EmbeddedError(f"PostgreSQL ended at its start: {self.log_tail()} (log: {self.places.server_log})")
            if time.monotonic() - told >= _PROGRESS_EVERY_S:
                told = time.monotonic()
                progress(f"PostgreSQL is still starting or recovering, {told - started:.0f} s: {self.log_tail()}")
            time.sleep(0.01)

    def is_ready(self) -> bool:
        """Tell whether it takes connections, by the file that pg_ctl reads."""
        lines = _read_pid_file(self.data)
        return self.is_running() and len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def is_running(self) -> bool:
        """Tell whether the child lives, and reap it if not."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, None before the first start."""
        return self.process.pid if self.process else None

    def stop(self) -> None:
        """Shut it down: politely, then with no checkpoint (nothing committed is lost either way), then by force."""
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self.process is None or self.process.poll() is not None:
                return
            self.process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_TIMEOUT_S)

    def limit_log(self) -> None:
        """Move a grown log aside and begin anew; PostgreSQL appends, so it may go on writing."""
        log = self.places.server_log
        if log.exists() and log.stat().st_size > _LOG_MAX_BYTES:
            with contextlib.suppress(OSError):  # a full disk: the truncation below is the more important part
                shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)

    def log_tail(self) -> str:
        """Return the last three lines of its log as one."""
        lines = (
            self.places.server_log.read_text(errors="replace").splitlines() if self.places.server_log.exists() else []
        )
        return " / ".join(lines[-3:]) or "nothing in its log"


def _read_pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _remove_stale_pid_file(data: Path) -> None:
    """Remove what a killed PostgreSQL left, when its pid is now another program's: PostgreSQL itself would refuse.

    A living PostgreSQL has its data folder as working folder.
    """
    lines = _read_pid_file(data)
    if not lines or not lines[0].strip().isdigit():
        return
    try:
        is_ours = Path(f"/proc/{lines[0].strip()}/cwd").resolve(strict=True) == data
    except OSError:  # nobody has the pid, or somebody else's process has it
        is_ours = False
    if not is_ours:
        (data / "postmaster.pid").unlink(missing_ok=True)
