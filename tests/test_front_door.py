"""The front door's exit codes and words when something is wrong: no traceback, the value, and what to do."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import DEADLINE_S

ROOT = Path(__file__).parent.parent


@pytest.fixture
def codelupe(tmp_path):
    """Run a command of the front door on an empty home; return exit status and words, errors first."""

    def run(*words, **variables):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODELUPE_")}
        environment = {**kept, "CODELUPE_HOME": str(tmp_path / "home"), **variables}
        command = [sys.executable, "-m", "codelupe", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=DEADLINE_S)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr + done.stdout

    return run


def test_a_source_that_does_not_exist_is_named(codelupe):
    status, words = codelupe("up", "--once", "/nowhere/at/all")

    assert status == 2
    assert "/nowhere/at/all" in words


def test_a_home_that_is_in_use_is_refused_with_the_pid_that_uses_it(codelupe, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with (home / "up.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)

        status, words = codelupe("up")

    assert status == 4
    assert "4711" in words


@pytest.mark.parametrize("command", [("up",), ("daemon", "tick"), ("why",)])
def test_a_home_that_cannot_be_made_is_named(codelupe, tmp_path, command):
    (tmp_path / "file").write_text("")

    status, words = codelupe(*command, CODELUPE_HOME=str(tmp_path / "file"))

    assert status == 2
    assert str(tmp_path / "file") in words


def test_a_database_that_does_not_answer_is_said_without_its_password(codelupe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://user:hidden@127.0.0.1:{free.getsockname()[1]}/db"

        status, words = codelupe("why", CODELUPE_DATABASE_URL=url)

    assert status == 2
    assert "no answer" in words
    assert "hidden" not in words


def test_a_port_that_is_taken_is_said_with_the_setting_that_changes_it(codelupe):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        status, words = codelupe(
            "daemon", "run", CODELUPE_DAEMON_PORT=str(taken.getsockname()[1]), CODELUPE_PROFILE="tiny"
        )

    assert status == 2
    assert "CODELUPE_DAEMON_PORT" in words


def test_failpoints_are_refused_outside_the_tests_profile(codelupe):
    status, words = codelupe("why", CODELUPE_FAILPOINTS="run.after_claim=kill", CODELUPE_PROFILE="gpu-32gb")

    assert status == 2
    assert "CODELUPE_FAILPOINTS" in words


def test_a_plan_that_cannot_work_exits_with_1_and_says_what_would(codelupe):
    """A model too large for the card, and nothing ingested to judge it on."""
    model = "Qwen/Qwen2.5-Coder-14B-Instruct"

    status, words = codelupe("plan", "--json", CODELUPE_PROFILE="gpu-16gb", CODELUPE_BASE_MODEL=model)

    assert status == 1
    assert "0 held-out test units, 8 are needed" in words
    assert "set CODELUPE_LORA_RANK=16" in words


def test_a_home_on_a_file_system_that_takes_no_file_is_named(codelupe):
    status, words = codelupe("up", CODELUPE_HOME="/proc/codelupe")

    assert status == 2
    assert "/proc/codelupe" in words
    assert "CODELUPE_HOME" in words
