import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from monitoring.logs import log_ids, redact, setup_logging

log = logging.getLogger("codelupe.tests")
ROOT = Path(__file__).parents[2]
_OTHER_PROCESS = """
import io, logging, pathlib, sys
from monitoring.logs import setup_logging
setup_logging(file=pathlib.Path(sys.argv[1]), stream=io.StringIO())
logging.info("first")
print("writes", flush=True)
sys.stdin.read()
"""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def stream():
    stream = io.StringIO()
    setup_logging(stream=stream)
    return stream


def entries(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_event_and_ids(stream):
    log.info("run %d claimed", 3, extra={"event": "run_claimed", "run": 3})
    (entry,) = entries(stream)
    assert entry.pop("ts").endswith("Z")
    assert entry == {
        "level": "INFO",
        "event": "run_claimed",
        "logger": "codelupe.tests",
        "message": "run 3 claimed",
        "run": 3,
    }


def test_a_library_s_record_without_event_is_logged_too(stream):
    logging.getLogger("some.library").warning("two\nlines")
    (entry,) = entries(stream)
    assert (entry["event"], entry["message"]) == ("log", "two\nlines")


def test_an_exception_is_logged_with_its_traceback_on_the_same_line(stream):
    try:
        int("bad row")
    except ValueError:
        log.exception("the tick failed", extra={"event": "tick_failed"})
    (entry,) = entries(stream)
    assert "ValueError: invalid literal" in entry["traceback"]
    assert "test_logs.py" in entry["traceback"]


def test_what_json_does_not_know_is_logged_as_text(stream):
    log.info("x", extra={"event": "x", "where": threading.Lock, "names": {"a"}})
    assert entries(stream)[0]["names"] == "{'a'}"


def test_ids_are_on_every_record_inside_and_on_none_after(stream):
    with log_ids(tick=7):
        with log_ids(run=3):
            log.info("inside")
        log.info("between")
    log.info("after")
    assert [(entry.get("tick"), entry.get("run")) for entry in entries(stream)] == [(7, 3), (7, None), (None, None)]


def test_ids_of_the_process_are_on_every_record_also_of_other_threads():
    stream = io.StringIO()
    setup_logging(stream=stream, ids={"tick": "a1", "run": 3})
    thread = threading.Thread(target=log.info, args=("beside",))
    thread.start()
    thread.join()
    with log_ids(run=4):
        log.info("inside")
    assert [(entry["tick"], entry["run"]) for entry in entries(stream)] == [("a1", 3), ("a1", 4)]


def test_what_is_less_severe_than_the_level_is_not_logged():
    stream = io.StringIO()
    setup_logging(level="WARNING", stream=stream)
    log.info("quiet")
    log.warning("loud")
    assert [entry["message"] for entry in entries(stream)] == ["loud"]


def test_setting_up_again_does_not_write_twice():
    first, second = io.StringIO(), io.StringIO()
    setup_logging(stream=first)
    setup_logging(stream=second)
    log.info("once")
    assert (first.getvalue(), len(entries(second))) == ("", 1)


def test_the_file_gets_json_and_is_made_with_its_folder(tmp_path):
    file = tmp_path / "logs" / "codelupe.log"
    setup_logging(file=file, stream=io.StringIO())
    log.info("hello", extra={"event": "greeted"})
    assert json.loads(file.read_text())["event"] == "greeted"


def test_of_two_processes_with_one_file_each_writes_to_its_own(tmp_path):
    file = tmp_path / "logs" / "ingest.log"
    command = [sys.executable, "-c", _OTHER_PROCESS, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as other:
        assert other.stdout.readline() == "writes\n"
        setup_logging(file=file, stream=io.StringIO())
        log.info("second")
        other.communicate("end")

    assert json.loads(file.read_text())["message"] == "first"
    assert json.loads(file.with_name("ingest-2.log").read_text())["message"] == "second"


def test_the_file_of_a_process_that_has_ended_is_written_on(tmp_path):
    for message in ("before", "after"):
        setup_logging(file=tmp_path / "daemon.log", stream=io.StringIO())
        log.info(message)

    lines = (tmp_path / "daemon.log").read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["before", "after"]


def test_the_file_is_rotated_and_only_so_many_old_ones_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("monitoring.logs.MAX_FILE_BYTES", 2000)
    setup_logging(file=tmp_path / "codelupe.log", stream=io.StringIO())
    for _ in range(200):
        log.info("x" * 100)
    files = sorted(path.name for path in tmp_path.glob("codelupe*"))
    assert files == ["codelupe.log", *(f"codelupe.log.{number}" for number in range(1, 6))]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())


def test_a_terminal_gets_one_readable_line_with_the_ids():
    terminal = Terminal()
    setup_logging(stream=terminal)
    log.info("run [3] claimed", extra={"event": "run_claimed", "line": "qwen"})
    log.warning("careful")
    text = terminal.getvalue()
    assert "run [3] claimed  [line=qwen]" in text
    assert "warning: careful" in text
    assert "{" not in text


def test_what_a_terminal_would_obey_is_shown_instead():
    terminal = Terminal()
    setup_logging(stream=terminal)
    log.info("remote: \x1b]0;owned\x07 \u202e %s", "a\x9b31mb", extra={"source": "x\ry"})
    assert r"remote: \x1b]0;owned\x07 \u202e a\x9b31mb  [source=x\ry]" in terminal.getvalue()


def test_a_warning_of_python_is_a_log_line(stream):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", UserWarning, stacklevel=1)
    assert "old thing" in entries(stream)[-1]["message"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://lupe:s3cret@db:5432/code", "postgresql://lupe:***@db:5432/code"),
        ("postgresql+psycopg://lupe:a@b/c:d@db/code", "postgresql+psycopg://lupe:***@db/code"),
        ("postgresql://:s3cret@/code?host=/tmp", "postgresql://:***@/code?host=/tmp"),
        ("https://x-access-token:s3cret@github.com/a/b.git", "https://x-access-token:***@github.com/a/b.git"),
        ("host=db password=s3cret user=lupe", "host=db password=*** user=lupe"),
        ("host=db password='s3 cret' user=lupe", "host=db password=*** user=lupe"),
        ("Authorization: Bearer s3cret-token-value", "Authorization: ***"),
        ("token ghp_0123456789abcdefghij", "token ***"),
        ("hf_0123456789abcdefghij.", "***."),
        ("wandb_v1_0123456789abcdefghij refused", "*** refused"),
        ("WANDB_API_KEY=0123456789abcdef", "WANDB_API_KEY=***"),
        ("{'WANDB_API_KEY': '0123456789abcdef'}", "{'WANDB_API_KEY': '***'}"),
        ("see http://127.0.0.1:8090/status for more", "see http://127.0.0.1:8090/status for more"),
        ("postgresql://lupe@db/code", "postgresql://lupe@db/code"),
    ],
)
def test_a_password_or_token_is_not_shown(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_no_way_into_the_log_carries_a_password(make):
    stream, url = make(), "postgresql://lupe:s3cret@db/code"
    setup_logging(stream=stream)
    try:
        int(url)
    except ValueError:
        log.exception("cannot reach %s", url, extra={"event": "database_away", "url": url, "settings": {"url": url}})
    assert "database" in stream.getvalue() or "cannot reach" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()
