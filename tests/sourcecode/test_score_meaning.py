"""Every degradation lowers the score: of a sample in each language, and of the standard library in 95 % of pairs.

`python -m tests.bench.scores TREE…` measures the same on whole trees.
"""

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from sourcecode.languages import LANGUAGES, detect_language
from sourcecode.syntax import measure_errors, parse
from tests.degradations import CREDENTIALS, DEGRADATIONS, INJECTIONS, fuse_functions, rate, reference_of

Degrade = Callable[[str, str], str]
_STDLIB = Path(sysconfig.get_path("stdlib"))
_SAMPLES = {
    language: path.read_text()
    for path in sorted((Path(__file__).parent / "samples").iterdir())
    if (language := detect_language(path.name))
}
_MODULES = (
    "abc bisect bdb calendar cmd code codecs contextlib copy csv dataclasses difflib fileinput fractions ftplib gettext"
    " heapq hmac imaplib mailbox netrc numbers optparse queue random sched selectors shelve shlex shutil smtplib string"
    " textwrap timeit tokenize trace uuid weakref zipapp"
)
_TEXTS = [path.read_text() for name in _MODULES.split() if (path := _STDLIB / f"{name}.py").exists()]


@pytest.mark.parametrize("degrade", DEGRADATIONS, ids=lambda degrade: degrade.__name__)
@pytest.mark.parametrize("language", sorted(_SAMPLES))
def test_a_degradation_lowers_the_score_of_good_code(language: str, degrade: Degrade) -> None:
    text = reference_of(degrade, language, _SAMPLES[language])
    assert rate(language, degrade(language, text)) < rate(language, text) - 1


_EXPRESSIONS = "int f(int x) => switch (x) { 1 => 2, _ => 3 };\n" * 20


@pytest.mark.parametrize(("language", "text"), [*sorted(_SAMPLES.items()), ("dart", _EXPRESSIONS)])
def test_fused_functions_are_still_code(language: str, text: str) -> None:
    """A text that is no code is refused, whatever its score."""
    tree = parse(language, fuse_functions(language, text))
    assert not isinstance(tree, str)
    assert measure_errors(tree) == 0


@pytest.mark.parametrize("degrade", DEGRADATIONS, ids=lambda degrade: degrade.__name__)
def test_a_degradation_lowers_the_score_of_19_in_20_modules(degrade: Degrade) -> None:
    pairs = [(reference_of(degrade, "python", text), degrade("python", text)) for text in _TEXTS[::2]]
    falls = [rate("python", text) - rate("python", worse) for text, worse in pairs if text != worse]
    assert len(falls) >= 12
    assert sum(fall > 0 for fall in falls) >= 0.95 * len(falls)


def test_there_is_a_sample_of_every_language_but_python() -> None:
    assert {*_SAMPLES} | {"python"} == {*LANGUAGES} == {*INJECTIONS} == {*CREDENTIALS}
