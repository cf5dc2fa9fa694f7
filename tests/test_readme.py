"""The documents say what the code does."""

import re
import subprocess
from pathlib import Path

from docs import configuration

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_configuration_table_is_current():
    assert configuration.place(README) == README, "run `python -m docs.configuration`"


def test_the_file_tree_names_every_file_that_is_not_a_test():
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    tree = README.partition("## The file tree")[2].partition("## Configuration")[0]
    named = set(re.findall(r"[\w.-]+\.(?:py|yml|toml|md|txt|html|css|svg|mako)|Makefile|Dockerfile|LICENSE", tree))
    code = [
        path
        for path in tracked
        if not path.startswith(("tests/", ".")) and Path(path).name not in ("__init__.py", "py.typed")
    ]

    missing = [path for path in code if Path(path).name not in named]

    assert missing == []


def test_every_link_to_a_file_of_this_tree_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []
