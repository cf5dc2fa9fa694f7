"""Benchmark tasks in real code's clothes: found by hashes of their words alone."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingest.benchmarks import benchmark_list
from sourcecode.contamination import BadList, find_benchmark, load_list
from sourcecode.filters import judge
from sourcecode.limits import Limits

# Made up: no benchmark has it.
STATEMENT = '''def merge_tides(levels, moon):
    """Return the heights of the tides at which the harbour of a small town by the sea must close its gates,
    given the levels of the water in the last thirteen hours and the phase of the moon as a number.
    """
'''
SOLUTION = """    closed = []
    for hour, level in enumerate(levels):
        pull = level * moon if hour % 6 else level + moon
        if pull > sum(levels) / max(1, len(levels)):
            closed.append((hour, pull))
    return [pull for hour, pull in closed if hour != moon]
"""
TYPESCRIPT = """// Return the heights of the tides at which the harbour of a small town by the sea must close its gates,
// given the levels of the water in the last thirteen hours and the phase of the moon as a number.
export function mergeTides(levels: number[], moon: number): number[] {
  return levels.filter((level) => level > moon);
}
"""
# The form of MultiPL-E's translations.
DART = """//Return the heights of the tides at which the harbour of a small town by the sea must close its gates,
// given the levels of the water in the last thirteen hours and the phase of the moon as a number.
List<double> merge_tides(List<double> levels, double moon) {
  return levels.where((level) => level > moon).toList();
}
"""
ORDINARY = '''def parse_options(arguments):
    """Parse the options of the command line and return them with what is left of the arguments after them."""
    options = {}
    while arguments and arguments[0].startswith("--"):
        name, _, value = arguments.pop(0)[2:].partition("=")
        options[name] = value or True
    return options, arguments
'''


@pytest.fixture
def make_list(tmp_path: Path) -> Callable[..., str]:
    """Call it with tasks (and --background) for the path of their list, made by the command."""

    def make(*tasks: dict[str, str], options: tuple[str, ...] = ()) -> str:
        file, target = tmp_path / "tasks.jsonl.gz", tmp_path / "list.bin"
        with gzip.open(file, "wt") as lines:
            lines.writelines(json.dumps(task) + "\n" for task in tasks)
        done = CliRunner().invoke(benchmark_list, [str(file), "--output", str(target), *options])
        assert done.exit_code == 0, done.output
        load_list.cache_clear()
        return str(target)

    return make


TASK = {"task_id": "Harbour/7", "prompt": STATEMENT, "canonical_solution": SOLUTION, "test": "assert merge_tides"}


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (STATEMENT + SOLUTION, True),
        (ORDINARY + "\n\n" + STATEMENT + SOLUTION + "\n\n" + ORDINARY, True),
        # indented, in a class, in capitals, with other comment marks, in another language
        ("class Tides:\n" + "".join(f"    {line}\n" for line in (STATEMENT + SOLUTION).splitlines()), True),
        ((STATEMENT + SOLUTION).upper(), True),
        (TYPESCRIPT, True),
        (DART, True),
        # the solution without the statement, with other numbers
        ("def merge_tides(levels, moon):\n" + SOLUTION, True),
        (ORDINARY, False),
        (ORDINARY * 40, False),
        # one sentence of it, quoted
        ("# The harbour of a small town by the sea must close its gates.\n" + ORDINARY, False),
        ("", False),
    ],
)
def test_a_text_with_a_task_in_it_is_found_and_no_other(
    text: str, is_found: bool, make_list: Callable[..., str]
) -> None:
    assert (find_benchmark(text, make_list(TASK)) is not None) == is_found


def test_a_file_with_a_task_is_refused_as_benchmark(make_list: Callable[..., str]) -> None:
    text = f"{STATEMENT}{SOLUTION}\n\n{ORDINARY}".encode()
    verdict = judge("a.py", text, Limits(benchmark_list=make_list(TASK)))
    assert (verdict.accepted, verdict.reason) == (False, "benchmark")
    assert "words" in (verdict.detail or "")
    assert judge("a.py", text, Limits()).accepted


def test_what_many_tasks_share_and_what_ordinary_code_has_is_no_sign(
    make_list: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "options.py").write_text(ORDINARY)
    frame = "# solve the task below in such a way that each of the tests at the end of the file passes at once please\n"
    tasks = [
        {"task_id": f"x/{number}", "prompt": frame * (number < 9), "canonical_solution": ORDINARY * (number == 9)}
        for number in range(10)
    ]
    known = make_list(*tasks, options=("--background", str(tmp_path / "code")))
    assert find_benchmark(frame * 3, known) is None
    assert find_benchmark(ORDINARY, known) is None


def test_the_list_holds_hashes_and_no_word_of_a_task(make_list: Callable[..., str]) -> None:
    head, _, body = Path(make_list(TASK)).read_bytes().partition(b"\n")
    about = json.loads(head)
    assert (about["format"], about["tokens"], about["sources"]) == (1, 13, ["tasks.jsonl.gz"])
    assert len(body) == 8 * about["hashes"] > 0
    assert b"harbour" not in body


@pytest.mark.parametrize(
    "text",
    [
        "def add(a: int, b: int) -> int:\n    return a + b\n" * 40,
        "values = [" + ", ".join(map(str, range(4000))) + "]\n",
        "for (let i = 0; i < n; i++) {\n  for (let j = 0; j < n; j++) {\n    total += a[i][j];\n  }\n}\n" * 20,
    ],
)
def test_the_shipped_list_knows_two_benchmarks_and_no_idiom(text: str) -> None:
    assert len(load_list().hashes) > 100_000
    assert find_benchmark(text) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no list"),
        (b"task_id,prompt\n", "no list"),
        (b'{"format": 1, "tokens": 13, "hashes": 2}\n' + bytes(8), "torn"),
        (b'{"format": 1, "tokens": 13, "hashes": 2}\n' + bytes(16), "torn"),
        (b'{"format": 9, "tokens": 13, "hashes": 0}\n', "another version"),
    ],
)
def test_a_list_that_is_none_is_named_with_the_command_that_makes_one(
    content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "list.bin"
    file.write_bytes(content)
    load_list.cache_clear()
    with pytest.raises(BadList, match=f"list.bin: .*{words}.*benchmark-list"):
        find_benchmark("x", str(file))


def test_a_file_that_holds_no_tasks_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"task_id": "a/1"}\n[1]\n')
    done = CliRunner().invoke(benchmark_list, [str(tmp_path / "odd.jsonl"), "--output", str(tmp_path / "list")])
    assert done.exit_code == 1
    assert "odd.jsonl:2: no task" in done.output
