"""The API under fuzzing: whatever is sent, no answer is a fault of the service, nor one that it does not describe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schema.jobs import add_job
from schema.lines import fetch_line
from tests.daemon.api_service import api_service
from tests.daemon.conclusions import conclude_with

PHASES = "examples,coverage,fuzzing"
MAX_EXAMPLES = 8
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def caller(ctx, engine, rows):
    """Serve a line with two versions, decisions and a job."""
    for _ in range(2):
        rows()
        conclude_with(ctx, -0.05)
    with engine.begin() as conn:
        add_job(conn, fetch_line(conn, "micro").id, forced=True, asked_by="tests")
    with api_service(engine, ctx.paths.home, "micro") as caller:
        yield caller


def test_no_request_finds_a_fault_or_an_answer_that_is_not_described(caller, tmp_path):
    # A search for signs alone is refused, and what a setting cannot be, which no pattern says.
    lenient = "[[operations]]\ninclude-operation-id = {!r}\nchecks.positive_data_acceptance.enabled = false\n"
    (tmp_path / "schemathesis.toml").write_text("".join(map(lenient.format, ("search", "changeSetting"))))
    command = [
        str(SCHEMATHESIS),
        "run",
        f"http://127.0.0.1:{caller.port}/v1/openapi.json",
        *("--header", f"Authorization: Bearer {caller.secrets['all']}"),
        *("--phases", PHASES, "--max-examples", str(MAX_EXAMPLES), "--seed", "1", "--no-color"),
        *("--generation-database", "none", "--suppress-health-check", "all", "--continue-on-failure"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
