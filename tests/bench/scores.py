"""Measure what the score means on real files: the share of files that each degradation lowers, and the distribution.

`python -m tests.bench.scores TREE… [--json] [--most 200]`. Of each language at most `--most` accepted files of the
trees are taken, at equal distances. For each language: the share of pairs, of those that a degradation changes, in
which the score falls; the deciles of the score; `worst` names the files on which a degradation had no effect.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from sourcecode.filters import judge
from sourcecode.languages import LANGUAGES
from sourcecode.limits import Limits
from tests.degradations import DEGRADATIONS, rate, reference_of

_NUM_NAMED = 3


def main() -> None:
    """Print the shares and the deciles."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("trees", nargs="+", type=Path, metavar="TREE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--most", type=int, default=200)
    arguments = parser.parse_args()
    files = read_files(arguments.trees)
    report = {language: measure(language, files[language], arguments.most) for language in LANGUAGES if files[language]}
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        for language, figures in report.items():
            print(language, *(f"\n  {name:20} {value}" for name, value in figures.items()))


def read_files(trees: list[Path]) -> dict[str, list[tuple[str, str]]]:
    """Return name and text of the accepted files by language."""
    files: dict[str, list[tuple[str, str]]] = defaultdict(list)
    limits = Limits()
    for tree in trees:
        for path in sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()):
            name = path.relative_to(tree).as_posix()
            verdict = judge(name, path.read_bytes(), limits, is_executable=False)
            if verdict.accepted and verdict.language and verdict.text:
                files[verdict.language].append((f"{tree.name}/{name}", verdict.text))
    return files


def measure(language: str, files: list[tuple[str, str]], most: int) -> dict[str, Any]:
    """Return the shares by degradation, the deciles of all files, and the files on which a degradation did nothing."""
    totals = [rate(language, text) for _, text in files]
    chosen = files[:: max(1, len(files) // most)]
    report: dict[str, Any] = {"files": len(files), "pairs": len(chosen)}
    worst: dict[str, list[str]] = {}
    for degrade in DEGRADATIONS:
        pairs = [(name, reference_of(degrade, language, text), degrade(language, text)) for name, text in chosen]
        rated = [(name, rate(language, text) - rate(language, worse)) for name, text, worse in pairs if worse != text]
        report[degrade.__name__] = round(sum(fall > 0 for _, fall in rated) / max(1, len(rated)), 3)
        worst[degrade.__name__] = [name for name, fall in rated if fall <= 0][:_NUM_NAMED]
    report["deciles"] = [round(value, 1) for value in statistics.quantiles(totals, n=10)] if len(totals) > 1 else totals
    return report | {"worst": {name: names for name, names in worst.items() if names}}


if __name__ == "__main__":
    main()
