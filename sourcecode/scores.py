"""How good a file is to learn from: 0 to 100, from five components, each explained by what it was made of.

Every component is a weighted mean of factors between 0 and 1. A factor is 1 at what reviewers and linters ask for and
falls to 0 at what they reject; the two ends are the constants below.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tree_sitter import Tree

from sourcecode.measures import Function, Measures, measure
from sourcecode.names import find_names, rate_conventions, rate_names
from sourcecode.risks import find_risks

SCORER_VERSION = 2

# Documentation and structure are what a model of code can learn most from and what differs most between files.
# Complexity is next; naming counts less since library names, which nobody chose, are half of all names. Security is
# 100 for nearly every file, so that it must not lift the rest: it is there to sink the exceptions.
WEIGHTS = {"structure": 0.27, "documentation": 0.28, "complexity": 0.2, "naming": 0.15, "security": 0.1}

LONG_LINE_CHARS = 100
_CODE_LIKE = re.compile(
    r"(?:[\w.\[\]]+ (?:[-+*/|&]|:)?= \S)|(?:return|import|from|let|const|var|if|for|while|fn|def|func|class)\b"
    r".*[:;{(=]|[\w.]+\(.*\)[;:,]?$|\}|else\b.*[:{]$"
)
_CODE_ENDS = (";", "{", "}")
# One of these is in whatever reads like code: prose is done with this look.
_CODE_MARKS = re.compile(r"[=:;{}(]")
_COMMENT_MARK = re.compile(r"(?:///?|//!|#+|/\*+|\*+/?|)\s*")
_FENCE = ("```", "~~~")
# Of a block of comments this share must read like code before all of it is taken for code.
_DEAD_SHARE = 0.3
_MIN_DEAD_LINES = 4
_MIN_REPEATED_CHARS = 8
_WINDOW_LINES = 3


@dataclass(frozen=True, slots=True)
class Score:
    """The judgement of one file; all numbers but the version are 0 to 100."""

    total: float
    components: dict[str, float]
    details: dict[str, dict[str, Any]]
    version: int = SCORER_VERSION


def score(language: str, text: str, tree: Tree) -> Score:
    """Score a text by the tree that `parse` made of it; the same text gives the same score everywhere."""
    data = text.encode()
    measures = measure(language, data, tree)
    lines = text.split("\n")
    bare = list(map(str.strip, lines))
    num_code_lines = _count_code_lines(measures, bare)
    dead_share = _measure_dead_code(measures, bare)
    long_share = _share(_count_long(lines), len(lines))
    details = {
        "structure": _rate_structure(measures, bare, num_code_lines, long_share, dead_share),
        "documentation": _rate_documentation(measures, bare, dead_share),
        "complexity": _rate_complexity(measures),
        "naming": _rate_naming(language, measures),
        "security": _rate_security(language, data, measures, num_code_lines),
    }
    components = {name: round(100 * float(detail.pop("rating")), 1) for name, detail in details.items()}
    total = sum(WEIGHTS[name] * value for name, value in components.items())
    return Score(total=round(total, 1), components=components, details=details)


def _rate_structure(
    measures: Measures, bare: Sequence[str], num_code_lines: int, long_share: float, dead_share: float
) -> dict[str, Any]:
    repeated_share = _measure_repetition(bare)
    function_lines = _weighted_mean([(f.num_lines, f.num_lines) for f in measures.functions if f.num_lines > 1])
    defined_share = _share(measures.num_defined_rows, measures.num_code_rows)
    rating = _mean(
        (0.2, _fall(num_code_lines, good=60, bad=0)),  # a handful of lines shows no structure
        (0.2, _fall(defined_share, good=0.95, bad=0.3)),
        (0.25, _fall(function_lines, good=10, bad=80) if measures.functions else 0.2),
        (0.15, _fall(long_share, good=0.0, bad=0.1)),
        (0.2, 1 - math.sqrt(repeated_share)),  # the first copies are the worst, and each further one still costs
    )
    # What nobody can read on a screen, or does not run, spoils the rest.
    rating *= (1 - min(1.0, 2 * dead_share)) * (1 - min(0.5, 2 * long_share))
    return {
        "rating": rating,
        "num_code_lines": num_code_lines,
        "num_functions": len(measures.functions),
        "mean_function_lines": round(function_lines, 1),
        "defined_share": round(defined_share, 3),
        "long_line_share": round(long_share, 3),
        "repeated_share": round(repeated_share, 3),
    }


def _rate_documentation(measures: Measures, bare: Sequence[str], dead_share: float) -> dict[str, Any]:
    rows = measures.comment_rows | measures.docstring_rows
    num_filled = len(bare) - bare.count("")
    num_comments = sum(bool(bare[row]) for row in rows if row < len(bare)) + measures.num_trailing_comments
    comment_share = _share(num_comments, num_filled)
    coverage = _share(measures.num_public_documented, measures.num_public)
    # Nothing public to document: the comments have to speak for the file.
    density = min(_fall(comment_share, good=0.25, bad=0.0), _fall(comment_share, good=0.6, bad=0.95))
    if not measures.num_public:
        coverage = 0.6 * density
    rating = _mean((0.6, coverage), (0.15, float(measures.has_header)), (0.25, density))
    return {
        "rating": rating * (1 - min(1.0, 3 * dead_share)),
        "documented_share": round(coverage, 3),
        "num_public": measures.num_public,
        "has_header": measures.has_header,
        "comment_share": round(comment_share, 3),
        "dead_code_share": round(dead_share, 3),
    }


def _rate_complexity(measures: Measures) -> dict[str, Any]:
    functions = [*measures.functions, measures.outside]
    paths = _weighted_mean([(1 + f.num_branches, _weight(f)) for f in functions])
    nesting = _weighted_mean([(f.max_nesting, _weight(f)) for f in functions])
    parameters = _weighted_mean([(f.num_parameters, 1) for f in measures.functions])
    factors = [(0.5, _fall(paths, good=2, bad=15)), (0.35, _fall(nesting, good=0.5, bad=4))]
    if measures.functions:
        factors.append((0.15, _fall(parameters, good=2, bad=7)))
    rating = _mean(*factors)
    # Without a single branch nothing difficult was mastered: neither good nor bad.
    has_branches = any(f.num_branches for f in functions)
    return {
        "rating": rating if has_branches else 0.5 * rating,
        "mean_paths": round(paths, 2),
        "mean_nesting": round(nesting, 2),
        "mean_parameters": round(parameters, 2),
        "max_paths": 1 + max(f.num_branches for f in functions),
    }


def _rate_naming(language: str, measures: Measures) -> dict[str, Any]:
    telling, num_names = rate_names(find_names(language, measures.code))
    conventional = rate_conventions(language, measures.function_names, measures.type_names)
    rating = _mean((0.8, _fall(telling, good=0.98, bad=0.6)), (0.2, conventional))
    return {
        "rating": rating,
        "telling_share": round(telling, 3),
        "conventional_share": round(conventional, 3),
        "num_names": num_names,
    }


def _rate_security(language: str, data: bytes, measures: Measures, num_code_lines: int) -> dict[str, Any]:
    risks = find_risks(language, data, measures.code, measures.comments)
    # In a long file one risky call weighs less than in a short one, but never nothing.
    weight = sum(severity for _, severity, _ in risks) / max(1.0, math.sqrt(num_code_lines / 150))
    return {"rating": 1 / (1 + weight), "risks": [{"rule": rule, "line": line} for rule, _, line in risks[:20]]}


def _count_long(lines: Sequence[str]) -> int:
    lengths = list(map(len, lines))
    return sum(map(LONG_LINE_CHARS.__lt__, lengths)) if max(lengths) > LONG_LINE_CHARS else 0


def _count_code_lines(measures: Measures, bare: Sequence[str]) -> int:
    skipped = measures.comment_rows | measures.docstring_rows
    return len(bare) - bare.count("") - sum(bool(bare[row]) for row in skipped if row < len(bare))


def _measure_repetition(bare: Sequence[str]) -> float:
    """Return the share of the longer lines that lie in a run of lines which occurs elsewhere in the file too."""
    kept = [line for line in bare if len(line) >= _MIN_REPEATED_CHARS]
    windows = list(zip(*(kept[start:] for start in range(_WINDOW_LINES)), strict=False))
    if len(set(windows)) == len(windows):
        return 0.0
    counts = Counter(windows)
    repeated = {at + step for at, window in enumerate(windows) if counts[window] > 1 for step in range(_WINDOW_LINES)}
    return _share(len(repeated), len(kept))


def _measure_dead_code(measures: Measures, bare: Sequence[str]) -> float:
    """Return the share of all lines that are code behind comment marks; prose around it is counted with it.

    An example between fences is documentation.
    """
    num_dead = 0
    for rows in _runs(row for row in measures.comment_rows if row < len(bare)):
        texts = _without_examples(bare[row] for row in rows)
        num_like_code = sum(map(_is_like_code, texts))
        is_dead = len(texts) >= _MIN_DEAD_LINES and num_like_code >= _DEAD_SHARE * len(texts)
        num_dead += len(texts) if is_dead else num_like_code
    return _share(num_dead, len(bare))


def _is_like_code(text: str) -> bool:
    if not _CODE_MARKS.search(text):
        return False
    return text.endswith(_CODE_ENDS) or _CODE_LIKE.match(text) is not None


def _without_examples(lines: Iterable[str]) -> list[str]:
    """Return the texts of comment lines, without their marks and without what stands between fences."""
    texts: list[str] = []
    is_example = False
    for line in lines:
        text = line[_COMMENT_MARK.match(line).end() :]  # type: ignore[union-attr]  # it matches nothing too
        if text.startswith(_FENCE):
            is_example = not is_example
        elif not is_example:
            texts.append(text)
    return texts


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _weight(function: Function) -> int:
    return max(1, function.num_lines)


def _fall(value: float, *, good: float, bad: float) -> float:
    """Return 1 at `good` or better, 0 at `bad` or worse, and the straight line between them."""
    return min(1.0, max(0.0, (value - bad) / (good - bad)))


def _mean(*weighted: tuple[float, float]) -> float:
    return sum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)


def _weighted_mean(pairs: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else 0.0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
