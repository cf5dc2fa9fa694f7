"""What a backup is: a ZIP file with one COPY stream for each table, and a manifest that says what must be in it.

tables/<name>.copy   the rows as PostgreSQL's COPY writes them (text format, UTF-8), all of one snapshot
manifest.json        revision, when and by what it was made, the sequences; of each table columns, rows, bytes, SHA-256

It holds for every server, whatever its version, and for the embedded one: no program of PostgreSQL is needed.
"""

import datetime as dt
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = "manifest.json"
_CHUNK = 1 << 20


class BackupError(Exception):
    """A backup cannot be made or restored; the message names what is wrong and what to do."""


class DamagedBackup(BackupError):
    """The file is not what was written."""

    def __init__(self, file: Path, what: object) -> None:
        super().__init__(f"{file} is no whole backup ({what}): take another one")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sequence(_Document):
    """Where the numbers of a column go on."""

    column: str
    last_value: int
    is_called: bool


class TableEntry(_Document):
    """What must be in the stream of one table."""

    name: str
    columns: list[str]
    sequences: list[Sequence]
    num_rows: int
    num_bytes: int
    sha256: str

    @property
    def member(self) -> str:
        """The stream's name in the file."""
        return member_of(self.name)


class Manifest(_Document):
    """What a backup says of itself. Tables stand in the order in which they are filled: parents first."""

    format_version: Literal[1] = 1
    made_at: dt.datetime  # the database's clock, at the snapshot
    codelupe: str
    server: str
    revision: str
    tables: list[TableEntry]

    @property
    def num_rows(self) -> int:
        """The rows of all tables."""
        return sum(table.num_rows for table in self.tables)


def member_of(table: str) -> str:
    """Return the name of a table's stream in the file."""
    return f"tables/{table}.copy"


class DigestingFile(io.RawIOBase):
    """Writes to a file and takes the SHA-256 of it on the way; it cannot seek, so nothing is written twice."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Write all of it."""
        self._digest.update(data)
        return self._file.write(data)

    @property
    def sha256(self) -> str:
        """The digest of what was written so far, in hex."""
        return self._digest.hexdigest()


class BackupFile:
    """A backup that is open for reading."""

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        self.file, self._archive = file, archive
        self.manifest = self._read_manifest()

    def read_table(self, table: TableEntry) -> Iterator[bytes]:
        """Yield a table's stream; raises DamagedBackup at its end, or before, when it is not what was written."""
        digest, num_bytes = hashlib.sha256(), 0
        try:
            with self._archive.open(table.member) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    num_bytes += len(chunk)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise DamagedBackup(self.file, f"{table.member}: {error}") from error
        if (num_bytes, digest.hexdigest()) != (table.num_bytes, table.sha256):
            raise DamagedBackup(self.file, f"{table.member} is not what its manifest lists")

    def _read_manifest(self) -> Manifest:
        try:
            return Manifest.model_validate_json(self._archive.read(MANIFEST))
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise DamagedBackup(self.file, f"{MANIFEST}: {error}") from error
        except ValidationError as error:
            if any(detail["loc"] == ("format_version",) for detail in error.errors()):
                raise BackupError(
                    f"{self.file} is of another format: restore it with the codelupe that made it"
                ) from error
            raise DamagedBackup(self.file, f"{MANIFEST}: {error.error_count()} faults") from error


@contextmanager
def open_backup(file: Path) -> Iterator[BackupFile]:
    """Open a backup and read its manifest. Raises DamagedBackup; OSError where it cannot be read at all."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise DamagedBackup(file, error) from error
    with archive:
        yield BackupFile(file, archive)
