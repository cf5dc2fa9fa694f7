"""docs/faults.md names what shows each of its rows, and nothing that is not there."""

import ast
import re
from pathlib import Path

import pytest

from schema.failpoints import NAMES

ROOT = Path(__file__).parent.parent
TABLE = [
    line for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")
]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE if not line.startswith("| Event |")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_event_is_shown_by_tests_that_exist(row):
    event, see, does, tests = row
    assert all((event, see, does))
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(file)] == []


def test_every_failpoint_is_struck_in_a_test():
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name in sorted(NAMES) if f'"{name}' not in texts] == []


def test_the_readme_leads_to_the_table():
    assert "(docs/faults.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def functions_of(file):
    """Return the names of the functions of a test file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
