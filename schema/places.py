"""Where the embedded server keeps its things: below the home, and its sockets in the temp folder."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

PORT = 5432
# sockaddr_un has 108 bytes with the closing NUL; PostgreSQL adds the longest name of ours.
_SOCKET_PATH_MAX_BYTES = 107
_LONGEST_NAME = f"/.s.PGSQL.{PORT}"


class EmbeddedError(Exception):
    """The embedded server cannot be used; the message names what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """Every path of the embedded server of one home (absolute, links resolved)."""

    home: Path

    @property
    def clusters(self) -> Path:
        """Folder with one data folder per major version, named by it."""
        return self.home / "postgres"

    @property
    def lock(self) -> Path:
        """File locked for as long as a keeper or a PostgreSQL of this home lives; tells the keeper's pid and socket."""
        return self.clusters / "keeper.lock"

    @property
    def server_log(self) -> Path:
        """What PostgreSQL says."""
        return self.home / "logs" / "postgres.log"

    @property
    def keeper_log(self) -> Path:
        """What the keeper says."""
        return self.home / "logs" / "keeper.log"

    @property
    def sockets(self) -> Path:
        """Private folder of the sockets: the home may be too deep for a socket path."""
        name = f"codelupe-pg-{os.getuid()}-{hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]}"
        path = Path(tempfile.gettempdir()).resolve() / name
        fits = len(os.fsencode(path)) + len(_LONGEST_NAME) <= _SOCKET_PATH_MAX_BYTES
        return path if fits else Path("/tmp") / name  # noqa: S108

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens."""
        return self.sockets / "keeper"


def find_places(home: Path) -> Places:
    """Resolve `home` and make its folders.

    Raises:
        EmbeddedError: the home cannot be written.
    """
    places = Places(home.expanduser().absolute())
    try:
        places.clusters.mkdir(parents=True, exist_ok=True, mode=0o700)
        places.server_log.parent.mkdir(exist_ok=True)
        places = Places(places.home.resolve(strict=True))
        places.lock.touch(mode=0o600)
    except OSError as error:
        raise EmbeddedError(
            f"cannot write {error.filename or places.home}: {error.strerror}; free space or change its permissions, "
            "or set CODELUPE_HOME to another folder"
        ) from error
    return places


def make_sockets_dir(path: Path) -> None:
    """Make the private folder (0700) and empty it of what a killed keeper left; the caller holds the lock.

    Raises:
        EmbeddedError: something of somebody else has its name.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        _check_private(path)
        remove_sockets(path)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise EmbeddedError(
            f"cannot make {path} for the database's sockets: {error.strerror}; set TMPDIR to a writable folder"
        ) from error


def remove_sockets(path: Path) -> None:
    """Remove the folder and the sockets in it."""
    for entry in path.iterdir():
        entry.unlink(missing_ok=True)
    path.rmdir()


def _check_private(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise EmbeddedError(f"{path} is not a private folder of user {os.getuid()}: remove it, or set TMPDIR")
