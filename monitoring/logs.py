"""Log lines: JSON with an `event` and ids, or one readable line on a terminal, and never a secret.

Everything logs through the standard library: `log.info("run 3 claimed", extra={"event": "run_claimed", "run": 3})`.
"""

import contextlib
import contextvars
import datetime as dt
import fcntl
import json
import logging
import re
from collections.abc import Iterator, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from monitoring.terminal import console_on

MAX_FILE_BYTES: Final = 10_000_000
NUM_OLD_FILES: Final = 5

# Libraries that log each of their beats: the clock even warns of every one that finds a tick at work, which is a
# counter here.
_QUIET: Final = {"alembic": logging.WARNING, "apscheduler": logging.ERROR}
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "event"}
# What a terminal would obey: a server, a file name or git may have put it into our words.
_CONTROLS: Final = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
_NO_IDS: Mapping[str, Any] = MappingProxyType({})
_ids: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("log_ids", default=_NO_IDS)

# The last line of defence: settings hold secrets as SecretStr, and nothing logs them on purpose. A database URL may
# carry an unescaped "/" or "@" in its password, so everything up to its last "@" goes.
_SECRETS: Final = (
    (re.compile(r"(postgres\w*(?:\+\w+)?://[^\s:/@\"']*):(?:\\\"|[^\s\"])*@"), r"\1:***@"),
    (re.compile(r"(://[^\s:/@\"']*):[^\s\"'/]*@"), r"\1:***@"),
    (re.compile(r"(\bpassword\s*[=:]\s*)(?:'[^']*'|[^\s'\",}]+)", re.IGNORECASE), r"\1***"),
    (re.compile(r"(\bWANDB_API_KEY\W{1,4})[\w-]{8,}"), r"\1***"),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|wandb_v1_)\w{10,}"), "***"),
    (
        re.compile(r"(\bAuthorization:?\s+|\bBearer\s+)(?:(?:Bearer|Basic|token)\s+)?[\w.~+/=-]{8,}", re.IGNORECASE),
        r"\1***",
    ),
)


def redact(text: str) -> str:
    """Replace what looks like a password or token with `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


@contextlib.contextmanager
def log_ids(**ids: Any) -> Iterator[None]:
    """Add `ids` (tick, run, line, …) to every record logged inside, in this thread."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def _fields_of(record: logging.LogRecord, process_ids: Mapping[str, Any]) -> dict[str, Any]:
    extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    return {**process_ids, **_ids.get(), **extra}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (UTC), level, event, logger, message, the ids, and a traceback where there is one."""

    def __init__(self, ids: Mapping[str, Any] = _NO_IDS) -> None:
        super().__init__()
        self._process_ids = ids

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        time = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
        entry = {
            "ts": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "event": getattr(record, "event", "log"),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record, self._process_ids),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(entry, default=str, ensure_ascii=False))


class LineFormatter(logging.Formatter):
    """One readable line: local time, level where it is not INFO, message, ids; a traceback below it."""

    def __init__(self, ids: Mapping[str, Any] = _NO_IDS) -> None:
        super().__init__()
        self._process_ids = ids

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without a final newline."""
        time = dt.datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = _fields_of(record, self._process_ids)
        ids = " ".join(f"{name}={value}" for name, value in fields.items() if not isinstance(value, dict))
        text = f"{time} {level}{record.getMessage()}" + (f"  [{ids}]" if ids else "")
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), redact(text))


class ConsoleHandler(logging.Handler):
    """Writes above the progress bars, because it shares their console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record."""
        try:
            style = (
                "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else None
            )
            # A Text of its own: a style given to print() would colour the bars as well.
            self._console.print(Text(self.format(record), style=style or ""), soft_wrap=True)
        except Exception:  # noqa: BLE001 -- logging must never end the program: the library's own rule
            self.handleError(record)


def _stream_handler(stream: TextIO | None, ids: Mapping[str, Any]) -> logging.Handler:
    console = console_on(stream)
    handler: logging.Handler
    if console.is_terminal:
        handler = ConsoleHandler(console)
        handler.setFormatter(LineFormatter(ids))
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter(ids))
    return handler


class _OwnFileHandler(RotatingFileHandler):
    """Writes to a file that no other process has: rotation is not shared. Where NAME.log is taken, to NAME-2.log, …."""

    def __init__(self, path: Path, ids: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock, own = _take_file(path)
        super().__init__(own, maxBytes=MAX_FILE_BYTES, backupCount=NUM_OLD_FILES, encoding="utf-8", delay=True)
        self.setFormatter(JsonFormatter(ids))

    def close(self) -> None:
        """Close the file and leave it to others."""
        super().close()
        self._lock.close()


def _take_file(path: Path) -> tuple[IO[str], Path]:
    """Return the first of NAME.log, NAME-2.log, … that is free, with the lock on it, which ends with this process."""
    own, number = path, 1
    while True:
        lock = own.with_name(f".{own.stem}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            number += 1
            own = path.with_name(f"{path.stem}-{number}{path.suffix}")
        else:
            return lock, own


def setup_logging(
    *,
    level: str = "INFO",
    file: Path | None = None,
    stream: TextIO | None = None,
    ids: Mapping[str, Any] = _NO_IDS,
) -> None:
    """Log to `stream` (standard error), as lines on a terminal and JSON elsewhere, and as JSON to a rotating `file`.

    `ids` are on every line of this process. A second call replaces what the first one set up. Of several processes with
    one file each writes to its own.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.get_name() == __name__]:
        root.removeHandler(handler)
        handler.close()
    for handler in [_stream_handler(stream, ids), *([_OwnFileHandler(file, ids)] if file else [])]:
        handler.set_name(__name__)
        root.addHandler(handler)
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
    logging.captureWarnings(capture=True)
