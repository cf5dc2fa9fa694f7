"""The main job, as a user runs it: `codelupe up` takes a folder of source files to published adapters, twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 150
# The real thing but for its size: one layer, short sequences, a few dozen files.
MICRO = {
    "CODELUPE_THRESHOLD_ROWS": "15",
    "CODELUPE_CHECK_INTERVAL_S": "1",
    "CODELUPE_MAX_RUN_CHARS": "400000",
    "CODELUPE_BASE_MAX_CHARS": "90000",
    "CODELUPE_MAX_TEST_CHARS": "150000",
    "CODELUPE_MIN_UNITS": "20",
    "CODELUPE_TRAIN_SHARE": "0.7",
    "CODELUPE_VALIDATION_SHARE": "0.1",
    "CODELUPE_SEQUENCE_TOKENS": "128",
    "CODELUPE_MAX_CHARS": "1000",
    "CODELUPE_HIDDEN_SIZE": "64",
    "CODELUPE_NUM_LAYERS": "1",
    "CODELUPE_INTERMEDIATE_SIZE": "128",
    "CODELUPE_VOCABULARY": "512",
    "CODELUPE_LORA_RANK": "16",
    "CODELUPE_LORA_ALPHA": "32",
    "CODELUPE_MICRO_BATCH": "8",
    "CODELUPE_THREADS": "1",
    "CODELUPE_DAEMON_PORT": "0",
    "CODELUPE_INGEST_PORT": "0",
    "CODELUPE_POLL_INTERVAL_S": "0.2",
}


def library_files(pattern: str, num: int) -> list[Path]:
    """Return middling files of the running Python, in a fixed order."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(folder.glob(pattern)) if 2_000 < path.stat().st_size < 15_000][:num]


class Service:
    """A `codelupe up` in a process of its own."""

    def __init__(self, home: Path, *words: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODELUPE_")}
        self.environment = {**kept, **MICRO, "CODELUPE_HOME": str(home), "HOME": str(home)}
        self.log = home.parent / "up.log"
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "codelupe", "up", *words]
            self.process = subprocess.Popen(command, env=self.environment, stderr=log, cwd=ROOT)

    def ask(self, *words: str) -> dict:
        command = [sys.executable, "-m", "codelupe", *words, "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "codelupe", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=ROOT).stdout

    def get(self, path: str) -> str:
        url = next(json.loads(line)["url"] for line in self.log.read_text().splitlines() if "daemon_started" in line)
        with urllib.request.urlopen(url + path.lstrip("/"), timeout=10) as answer:
            return answer.read().decode()

    def wait_until(self, what: str, holds) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended while waiting for {what}:\n{self.log.read_text()[-3000:]}"
            try:
                if holds():
                    return
            except (StopIteration, urllib.error.URLError):
                pass  # not listening yet
            time.sleep(0.2)
        raise AssertionError(f"no {what} within {TIMEOUT_S} s:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for path in library_files("*.py", 60):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def service(tmp_path, source):
    home = tmp_path / "home"
    home.mkdir()
    running = Service(home, str(source))
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def test_a_folder_becomes_a_published_adapter_and_new_files_a_second_one(service, source, tmp_path):
    service.wait_until("first adapter", lambda: json.loads(service.get("/health"))["current_version"] == 1)
    health = json.loads(service.get("/health"))
    assert health["status"] == "ok", health
    assert health["model_loaded"]
    assert health["last_trained_id"] > 0
    status = json.loads(service.get("/status"))
    assert status["config"]["daemon"]["threshold_rows"] == 15
    metrics = service.get("/metrics")
    for name in ("daemon_backlog_rows", "daemon_decisions_total", "evaluation_bits_per_byte", "rows_unaccounted"):
        assert f"codelupe_{name}" in metrics

    first = service.ask("models", "show", "current")
    assert first["verified"]
    assert first["bits_per_byte"]["candidate"] < first["bits_per_byte"]["base"]

    # The same source again adds nothing; a source with more files adds those.
    rows = service.ask("audit")["rows_total"]
    service.run("ingest", "add", str(source))
    for path in library_files("[a-e]*/*.py", 45):
        shutil.copy(path, source / f"{path.parent.name}_{path.name}")
    service.run("ingest", "add", str(source))
    service.wait_until(
        "second run", lambda: [run["number"] for run in [json.loads(service.get("/status"))["run"]] if run]
    )
    service.wait_until("its verdict", lambda: service.ask("runs", "show", "latest")["finished_at"])

    second = service.ask("runs", "show", "latest")
    audit = service.ask("audit")
    assert second["run"] == 2
    assert second["parent"] == 1
    assert second["replayed_rows"] > 0
    assert second["bits_per_byte"]["incumbent"] == pytest.approx(first["bits_per_byte"]["candidate"], abs=0.2)
    assert rows < audit["rows_total"] <= rows + 45
    assert audit["rows_unaccounted"] == 0

    assert service.stop() == 0
    state = json.loads((tmp_path / "home" / "state" / "trainer_state_tiny.json").read_text())
    assert state["total_training_runs"] >= 1
