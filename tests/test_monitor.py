"""`codelupe monitor` as an operator runs it: beside a real service, in a terminal, in a pipe, until Ctrl-C or `q`."""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

from tests.monitoring.fake_daemon import FakeDaemon
from tests.processes import ROOT, steer
from tests.rows import store_rows
from tests.waiting import DEADLINE_S, wait_for

QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("CODELUPE_", "NO_COLOR", "FORCE_"))}
COMMAND = [sys.executable, "-m", "codelupe", "monitor", "--every", "0.1"]


@pytest.fixture
def watch(tmp_path):
    """Start a monitor that writes into a file; return its process and what reads the file."""
    started = []

    def start(*words, **variables):
        file = tmp_path / f"monitor-{len(started)}.out"
        environment = {**QUIET, "CODELUPE_HOME": str(tmp_path / "home"), **variables}
        with file.open("w") as out:
            process = subprocess.Popen([*COMMAND, *words], stdout=out, stderr=out, cwd=ROOT, env=environment)
        started.append(process)

        def lines():
            return file.read_text().rpartition("\n")[0].splitlines()  # the last one may be half written

        return process, lines

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_real_round_is_followed_in_lines_and_in_json_until_the_service_has_gone(start, watch, database_url, tmp_path):
    home = tmp_path / "home"
    store_rows(database_url)
    steer(home, hold_step=6)
    service = start("daemon", "run", database_url=database_url)
    url = service.wait_for("daemon_started")["url"]
    json_process, documents = watch("--json", url)
    lines_process, lines = watch(url, CODELUPE_PROGRESS_EVERY_S="0.1")
    wait_for(lambda: any(', "step": 5,' in line for line in documents()), "step 5 in JSON")
    wait_for(lambda: any("run 1: training, train, 5/20, 25%, epoch 0.25, loss" in line for line in lines()), "a line")
    (home / "go").touch()
    wait_for(lambda: any('"current_version": 1' in line for line in documents()), "the version in JSON")
    wait_for(lambda: any("version 1" in line for line in lines()), "the version in a line")
    assert service.stop() == 0
    wait_for(lambda: any("no answer" in line for line in lines()), "the outage in a line")
    wait_for(lambda: json.loads(documents()[-1])["error"], "the outage in JSON")
    for process in (json_process, lines_process):
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    seen = [json.loads(line) for line in documents()]
    steps = [one["status"]["training"].get("step", 0) for one in seen if one["status"]["run"]]
    assert steps[: steps.index(5)] == sorted(steps[: steps.index(5)])
    assert [one["decisions"] for one in seen if one["decisions"] and one["decisions"]["decisions"]]
    timeless = [{**one, "at": None, "status": {**one["status"], "uptime_s": None}} for one in seen]
    assert [one for one, later in itertools.pairwise(timeless) if one == later] == []


class Terminal:
    """A monitor on a pseudo-terminal of 100 columns."""

    def __init__(self, url, home, **variables):
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        environment = {**QUIET, "CODELUPE_HOME": str(home), "TERM": "xterm-256color", **variables}
        ends = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self.process = subprocess.Popen([*COMMAND, url], cwd=ROOT, env=environment, **ends)
        os.set_blocking(self.ours, False)
        self.raw = ""

    def take(self):
        """Take what was drawn since; a terminal that nobody reads would keep its program from ending."""
        with contextlib.suppress(BlockingIOError):
            while drawn := os.read(self.ours, 1 << 16):
                self.raw += drawn.decode(errors="replace")

    def shows(self, words):
        """Say whether `words` were drawn, colours apart."""
        self.take()
        return words in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    def wait_end(self):
        """Wait for its end; return its status."""
        wait_for(lambda: self.take() or self.process.poll() is not None, "the end")
        self.take()
        return self.process.returncode

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def open_terminal(tmp_path):
    opened = []

    def open_terminal(url, **variables):
        opened.append(Terminal(url, tmp_path / "home", **variables))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        terminal.close()


def test_a_terminal_is_redrawn_through_an_outage_until_q_and_left_as_it_was(open_terminal):
    first = FakeDaemon()
    terminal = open_terminal(first.url)
    wait_for(lambda: terminal.shows("37/120, 31%, epoch 0.31"), "a frame")
    assert "\x1b[36m" in terminal.raw, "colours"
    assert "\x1b[?25l" in terminal.raw, "no cursor"
    first.close()
    wait_for(lambda: terminal.shows("no answer for"), "the outage")
    terminal.raw = ""
    second = FakeDaemon(first.port)
    try:
        wait_for(lambda: terminal.shows("run 4: training"), "the frame again")
        second.answers["/status"] = (0, b"")  # what hangs does not keep it from ending
        os.write(terminal.ours, b"q")
        assert terminal.wait_end() == 0
    finally:
        second.close()
    assert "\x1b[?25h" in terminal.raw, "the cursor is back"
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    assert "Traceback" not in terminal.raw


def test_a_terminal_without_colours_ends_at_ctrl_c(open_terminal):
    fake = FakeDaemon()
    try:
        terminal = open_terminal(fake.url, NO_COLOR="1")
        wait_for(lambda: terminal.shows("37/120"), "a frame")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_end() == 0
    finally:
        fake.close()
    assert re.findall(r"\x1b\[[0-9;]*[34][0-9]m", terminal.raw) == []
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    assert "Traceback" not in terminal.raw
