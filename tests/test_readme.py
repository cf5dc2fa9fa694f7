"""The documents say what the code does."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from docs import readme

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_tree_and_the_configuration_table_are_current():
    assert readme.place(README) == README, "run `python -m docs.readme`"


def test_every_link_to_a_file_of_this_tree_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []


# Of a licence: how the README calls it, and how the packages' own metadata do.
LICENCES = {
    "MIT": r"\bMIT\b",
    "BSD": r"\bBSD\b",
    "Apache": r"\bApache\b",
    "LGPL": r"\bLGPL|Lesser General Public",
    "MPL": r"\bMPL|Mozilla Public",
    "ZPL": r"\bZPL|Zope Public",
}
OTHER_NAMES = {"psycopg": "psycopg 3", "apscheduler": "APScheduler 3"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WHAT_RUNS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["train"]]


@pytest.mark.parametrize("name", [re.match(r"[\w-]+", text)[0] for text in WHAT_RUNS])
def test_every_dependency_is_listed_with_the_licence_that_it_declares(name):
    shown = "tree-sitter and six grammars" if name.startswith("tree-sitter") else OTHER_NAMES.get(name, name)
    rows = [[cell.strip() for cell in line.split("|")] for line in README.splitlines() if line.startswith("| ")]
    listed = [row[2] for row in rows if shown.lower() in row[1].lower().split(", ")]
    assert len(listed) == 1, f"one row of the table of dependencies names {shown}"
    about = metadata.metadata(name)
    declared = [about.get("License-Expression") or "", (about.get("License") or "").partition("\n")[0]]
    declared += [text for text in about.get_all("Classifier") or [] if text.startswith("License ::")]
    kinds = {kind for kind, pattern in LICENCES.items() if re.search(pattern, " ".join(declared))}
    assert kinds, declared
    assert kinds & {kind for kind in LICENCES if kind in listed[0]}, (declared, listed[0])
