"""The main job, as a user runs it: `codelupe up` takes a folder of source files to published adapters, twice."""

import json
import shutil
import sysconfig
from pathlib import Path

import pytest

TIMEOUT_S = 400
# The real thing but for its size: one layer, short sequences, a few dozen files.
MICRO = {
    "threshold_rows": 15,
    "check_interval_s": 1,
    "max_run_chars": 400000,
    "base_max_chars": 90000,
    "max_test_chars": 150000,
    "min_units": 20,
    # The split depends on the path of the test's folder: so few are there in all but one case of a thousand.
    "min_test_units": 5,
    "train_share": 0.7,
    "validation_share": 0.1,
    "sequence_tokens": 128,
    "max_chars": 1000,
    "hidden_size": 64,
    "num_layers": 1,
    "intermediate_size": 128,
    "vocabulary": 512,
    "lora_rank": 16,
    "lora_alpha": 32,
    "micro_batch": 8,
    "threads": 1,
    "daemon_port": 0,
    "ingest_port": 0,
    "poll_interval_s": 0.2,
}


def library_files(pattern: str, num: int) -> list[Path]:
    """Return middling files of the running Python, in a fixed order."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(folder.glob(pattern)) if 2_000 < path.stat().st_size < 15_000][:num]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for path in library_files("*.py", 70):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def service(start, source):
    return start("up", str(source), stand_in=False, **MICRO)


def test_a_folder_becomes_a_published_adapter_and_new_files_a_second_one(service, source, tmp_path):
    service.wait_until("first adapter", lambda: service.health()["current_version"] == 1, TIMEOUT_S)
    health = service.health()
    assert health["status"] == "ok", health
    assert health["model_loaded"]
    assert health["last_trained_id"] > 0
    status = service.status()
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
    service.wait_until("second run", lambda: [run["number"] for run in [service.status()["run"]] if run], TIMEOUT_S)
    service.wait_until("its verdict", lambda: service.ask("runs", "show", "latest")["finished_at"], TIMEOUT_S)

    second = service.ask("runs", "show", "latest")
    audit = service.ask("audit")
    assert second["run"] == 2
    assert second["parent"] == 1
    assert second["replayed_rows"] > 0
    # It is judged on other files, too: what it is better by than the base is what stays.
    then, now = first["bits_per_byte"], second["bits_per_byte"]
    assert now["incumbent"] - now["base"] == pytest.approx(then["candidate"] - then["base"], abs=0.04)
    assert rows < audit["rows_total"] <= rows + 45
    assert audit["rows_unaccounted"] == 0

    assert service.stop() == 0
    state = json.loads((tmp_path / "home" / "state" / "trainer_state_tiny.json").read_text())
    assert state["total_training_runs"] >= 1
