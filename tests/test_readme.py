"""The documents say what the code does."""

import re
from pathlib import Path

from docs import readme

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_tree_and_the_configuration_table_are_current():
    assert readme.place(README) == README, "run `python -m docs.readme`"


def test_every_link_to_a_file_of_this_tree_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []
