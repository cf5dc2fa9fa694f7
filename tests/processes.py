"""codelupe in processes of its own, as an operator runs it; with a stand-in for the training child where asked.

`python -m tests.processes WORDS…` is `codelupe WORDS…` with that stand-in (tests/stand_in.py).
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stand_in import STEERING
from tests.waiting import DEADLINE_S

ROOT = Path(__file__).parent.parent
# Of a run whose base needs not be made: everything but the model is the real thing, and quick.
QUICK = {
    "base_model": "some/model",
    "threshold_rows": 20,
    "check_interval_s": 0.5,
    "line_lease_s": 5,
    "back_off_s": 1,
    "min_test_units": 8,
    "bootstrap_rounds": 200,
    "daemon_port": 0,
    "ingest_port": 0,
    "poll_interval_s": 0.2,
    "ingest_workers": 1,
}
_numbers = itertools.count(1)


class Service:
    """One `codelupe WORDS…` in a process group of its own. `settings` are fields of the configuration."""

    def __init__(
        self,
        home: Path,
        *words: str,
        stand_in: bool = True,
        database_url: str | None = None,
        failpoints: str | None = None,
        **settings: Any,
    ) -> None:
        asked = {**QUICK, **settings} if stand_in else settings
        asked |= {"database_url": database_url} if database_url else {}
        asked |= {"failpoints": failpoints} if failpoints else {}
        ours = {f"CODELUPE_{name.upper()}": str(value) for name, value in asked.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODELUPE_")}
        self.home = home
        self.environment = {**kept, **ours, "CODELUPE_HOME": str(home), "HOME": str(home)}
        self.module = "tests.processes" if stand_in else "codelupe"
        self.log = home.parent / f"{home.name}-{next(_numbers)}.log"
        home.mkdir(exist_ok=True)
        with self.log.open("w") as log:
            command = [sys.executable, "-m", self.module, *words]
            self.process = subprocess.Popen(
                command, env=self.environment, stderr=log, stdout=log, cwd=ROOT, start_new_session=True
            )

    def run(self, *words: str, check: bool = True) -> str:
        """Run another command with the same configuration; return what it prints."""
        command = [sys.executable, "-m", self.module, *words]
        environment = {name: value for name, value in self.environment.items() if name != "CODELUPE_FAILPOINTS"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE_S)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def ask(self, *words: str) -> Any:
        """Run a report; return what its JSON says."""
        return json.loads(self.run(*words, "--json"))

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's records, or those of one event, in their order."""
        lines = (line for line in self.log.read_text().splitlines() if line.startswith("{"))
        # The last line may be half written.
        records = []
        for line in lines:
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return [record for record in records if name in (None, record["event"])]

    def get(self, path: str) -> str:
        """Return what the daemon answers at `path`, whatever the status."""
        url = self.events("daemon_started")[0]["url"]
        try:
            with urllib.request.urlopen(url + path.lstrip("/"), timeout=DEADLINE_S) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def health(self) -> dict[str, Any]:
        """Return the answer of /health."""
        return json.loads(self.get("/health"))

    def status(self) -> dict[str, Any]:
        """Return the answer of /status."""
        return json.loads(self.get("/status"))

    def wait_until(self, what: str, holds: Callable[[], Any], timeout_s: float = DEADLINE_S) -> Any:
        """Wait for something true, and return it; a service that ended meanwhile will not bring it about."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended while waiting for {what}:\n{self.log_tail()}"
            # Not listening yet, or the event is not there yet.
            with contextlib.suppress(IndexError, urllib.error.URLError, ConnectionError):
                if found := holds():
                    return found
            time.sleep(0.05)
        raise AssertionError(f"no {what} within {timeout_s} s:\n{self.log_tail()}")

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for a record of the log; return the first one."""

        def find() -> dict[str, Any] | None:
            found = (one for one in self.events(event) if all(one.get(key) == fields[key] for key in fields))
            return next(found, None)

        found: dict[str, Any] = self.wait_until(f"{event} {fields}", find)
        return found

    def wait_end(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for the process to end by itself; return its status, minus the signal that killed it."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout_s} s:\n{self.log_tail()}") from None

    def stop(self, number: int = signal.SIGTERM, *, group: bool = False, timeout_s: float = DEADLINE_S) -> int:
        """Ask it to stop, with `group` as Ctrl-C at a terminal does; return its status."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.wait_end(timeout_s)

    def kill(self) -> None:
        """Kill it, and nothing else."""
        self.process.kill()
        self.process.wait()

    def children(self) -> dict[str, list[int]]:
        """Return the pids of all that lives of this home, by what they are."""
        return processes_of(self.home)

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text()[-4000:]


def steer(home: Path, **values: Any) -> None:
    """Tell the stand-ins that start from now on what to do: the fields of tests/stand_in.py's DEFAULTS."""
    home.mkdir(exist_ok=True)
    temporary = home / (STEERING + ".new")
    temporary.write_text(json.dumps(values))
    temporary.replace(home / STEERING)


def processes_of(home: Path) -> dict[str, list[int]]:
    """Return the living processes that have `home` in their command line, environment or folder, by what they are."""
    found: dict[str, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (folder / "cmdline").read_bytes() + b"\0" + (folder / "environ").read_bytes()
            if os.fsencode(home) in told or home in (folder / "cwd").readlink().parents:
                found.setdefault(_kind(folder), []).append(int(folder.name))
    return {kind: sorted(pids) for kind, pids in found.items()}


def _kind(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    line = " ".join(words)
    kinds = {
        "schema.keeper": "keeper",
        "-m tests.stand_in": "trainer",
        "-m daemon.training": "trainer",
        "-m ingest.nursery": "clone",
    }
    for mark, kind in kinds.items():
        if mark in line:
            return kind
    program = Path(words[0]).name
    if program == "postgres":
        return "postmaster"
    return "backend" if line.startswith("postgres:") else "git" if program.startswith("git") else "codelupe"


def end_processes_of(home: Path) -> None:
    """Kill whatever still lives of this home."""
    deadline = time.monotonic() + DEADLINE_S
    while (left := processes_of(home)) and time.monotonic() < deadline:
        for pid in itertools.chain.from_iterable(left.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def make_source(folder: Path, num: int = 60) -> Path:
    """Copy middling files of the running Python into `folder`: something that ingest accepts."""
    folder.mkdir()
    library = Path(os.__file__).parent
    files = [path for path in sorted(library.glob("*.py")) if 2_000 < path.stat().st_size < 15_000]
    for path in files[:num]:
        shutil.copy(path, folder)
    return folder


if __name__ == "__main__":
    import codelupe
    from daemon import supervise

    supervise.child_command = lambda verb, job: [sys.executable, "-m", "tests.stand_in", verb, str(job)]
    codelupe.main()
