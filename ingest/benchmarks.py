"""`codelupe ingest benchmark-list`: hashes of the tasks of public benchmarks, from files that the operator names."""

import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from sourcecode.contamination import make_list
from sourcecode.languages import detect_language

# What the published files call a task and its parts: HumanEval, MBPP, and their translations in several collections.
_ID_FIELDS = ("task_id", "name")
_STATEMENT_FIELDS = ("text", "prompt", "declaration")
_SOLUTION_FIELDS = ("code", "canonical_solution")
# A statement stands in its function's comment or docstring; a copied solution may come without it.
_COMMENT = re.compile(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|/\*[\s\S]*?\*/|^\s*(?://|#).*$', re.MULTILINE)
_NUMBER = re.compile(r"\d+")
_MAX_BACKGROUND_BYTES = 1_000_000


@click.command("benchmark-list")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Where the list goes.")
@click.option(
    "--background",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A folder of ordinary code: what occurs in it is no sign of a benchmark.",
)
def benchmark_list(files: tuple[Path, ...], output: Path, folders: tuple[Path, ...]) -> None:
    """Make a list of hashes of the benchmark tasks in FILES (JSON lines, .gz too); name it as `benchmark_list`.

    Files of one task in several languages belong into one call. The list holds hashes alone.
    """
    tasks: dict[str, list[str]] = {}
    for file in files:
        for name, texts in read_tasks(file):
            tasks.setdefault(name, []).extend(texts)
    background = (text for folder in folders for text in _read_code(folder))
    data = make_list(tasks.values(), sources=[file.name for file in files], background=background)
    temporary = output.with_name(output.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(output)
    num_hashes = json.loads(data.partition(b"\n")[0])["hashes"]
    click.echo(f"{output}: {num_hashes} hashes of {len(tasks)} tasks", err=True)


def read_tasks(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each task of a file, the same in each language, and its texts: statement and solution.

    Raises:
        click.ClickException: a line is no task.
    """
    for number, line in enumerate(_read_lines(file), start=1):
        try:
            row = json.loads(line)
            name = next(str(row[field]) for field in _ID_FIELDS if field in row)
        except (ValueError, StopIteration, TypeError) as error:
            raise click.ClickException(
                f"{file}:{number}: no task; give JSON lines with {' or '.join(_ID_FIELDS)}, as the benchmarks publish"
            ) from error
        statement, solution = _join(row, _STATEMENT_FIELDS), _join(row, _SOLUTION_FIELDS)
        # HumanEval/7, MBGP/7, Rust/7: the number is the task's. The two benchmarks share numbers, and few words.
        key = (_NUMBER.findall(name) or [name])[-1]
        yield key, [f"{statement}\n{solution}", f"{_COMMENT.sub('', statement)}\n{solution}"]


def _join(row: dict[str, Any], fields: Sequence[str]) -> str:
    return "\n".join(row[field] for field in fields if isinstance(row.get(field), str))


def _read_lines(file: Path) -> Iterator[str]:
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            yield from (line for line in lines if line.strip())
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise click.ClickException(f"{file}: cannot be read ({error})") from error


def _read_code(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in sorted(names) if detect_language(name)):
            if path.is_file() and path.stat().st_size <= _MAX_BACKGROUND_BYTES:
                yield path.read_text(encoding="utf-8", errors="replace")
