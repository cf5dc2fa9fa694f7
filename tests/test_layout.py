"""What holds for the tree as a whole: where names resolve, what importing costs, what the front door offers."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("daemon", "ingest", "schema", "monitoring", "sourcecode", "codelupe")


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_name_resolves_to_this_tree(name):
    # PyPI has packages called `schema` and `python-daemon`: ours must win.
    found = Path(importlib.import_module(name).__file__ or "")

    assert found.is_relative_to(ROOT)


def test_every_line_that_we_log_says_its_event():
    written = {f"log.{level}" for level in ("debug", "info", "warning", "error", "exception", "log")}
    nameless = []
    for package in PACKAGES[:-1]:
        for path in (ROOT / package).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in written:
                    named = "extra" in {keyword.arg for keyword in call.keywords}
                    nameless += [] if named else [f"{path.relative_to(ROOT)}:{call.lineno}"]

    assert nameless == []


def test_the_control_half_imports_nothing_of_the_torch_stack():
    modules = (
        "codelupe, daemon.service, daemon.reports, daemon.models, daemon.commands, ingest.commands, schema.commands"
    )
    heavy = "{'torch', 'transformers', 'peft', 'bitsandbytes', 'accelerate', 'wandb'}"
    script = f"import {modules}, sys, json; print(json.dumps(sorted({heavy} & set(sys.modules))))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)

    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(("marker", "is_chosen"), [((), False), (("-m", "drill"), True)])
def test_a_plain_pytest_chooses_nothing_that_needs_more_than_pip_packages(marker, is_chosen):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/stack", "tests/drill", *marker]

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert ("::test_" in done.stdout) == is_chosen, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "",
        "up",
        "db",
        "db backup",
        "db restore",
        "audit",
        "ingest",
        "ingest add",
        "ingest crawl",
        "ingest opt-out",
        "daemon",
        "daemon run",
        "train",
        "why",
        "runs show",
        "search",
        "models",
        "monitor",
        "plan",
        "complete",
    ],
)
def test_every_command_explains_itself(command):
    done = subprocess.run(
        [sys.executable, "-m", "codelupe", *command.split(), "--help"], capture_output=True, text=True, cwd=ROOT
    )

    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")
