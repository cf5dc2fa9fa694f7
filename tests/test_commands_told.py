"""Every command that the documents tell is one, and knows the options that it is told with."""

import re
from pathlib import Path

import click
import pytest

import codelupe

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# At the beginning of a code span or of a block's line: the command's words, up to a comment or the next command.
_TOLD = re.compile(r"^(?:\.venv/bin/|docker compose .*)?codelupe ([a-z][^`;&|#\n]*)")


def find_told():
    """Return each command line of the documents, with where it stands."""
    found, is_block = [], False
    for document in DOCUMENTS:
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
            is_block ^= line.startswith("```")
            codes = [line] if is_block else re.findall(r"`([^`]*)`", line)
            lines = [re.split(" {3,}", told)[0] for code in codes for told in _TOLD.findall(code)]
            found += [pytest.param(told, id=f"{document.name}:{number}") for told in lines]
    return found


def find_command(words):
    """Return the command that the words lead to, and the words after it."""
    command = codelupe.main
    while isinstance(command, click.Group) and words and re.fullmatch("[a-z-]+", words[0]):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("told", find_told())
def test_a_command_that_a_document_tells_is_one_and_has_these_options(told):
    command, rest = find_command(told.split())
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.strip("[]") for word in rest if re.match(r"\[?--[a-z]", word)} <= options | {"--help"}
