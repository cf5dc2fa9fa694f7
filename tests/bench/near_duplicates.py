"""Measure near-duplicate detection on real code: speed beside BigCode's algorithm, what is found of degraded copies.

`python -m tests.bench.near_duplicates TREE... [--json]`. The rival is BigCode's published MinHash (5-grams of words,
SHA-1, 256 permutations modulo 2^61 - 1, NumPy), written anew from its description; both run in turn, best of 5.
"""

import argparse
import hashlib
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sourcecode.near_duplicates import make_bands, make_shingles, similarity

ROUNDS = 5
NUM_TIMED = 120  # files of the speed contest: the rival does about twenty a second
THRESHOLD = 0.7
SUFFIXES = (".py", ".rs", ".go", ".ts", ".js", ".dart")
MAX_BYTES = 262_144
BUCKETS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
_WORD = re.compile(r"[A-Za-z_]\w*")
_PRIME = np.uint64((1 << 61) - 1)
_CHANCE = np.random.default_rng(42)
_FACTORS = _CHANCE.integers(1, 1 << 61, 256, dtype=np.uint64)
_SUMMANDS = _CHANCE.integers(0, 1 << 61, 256, dtype=np.uint64)
_HEADER = "# Copyright 2026 The Authors. Under the Apache License, Version 2.0; see the file LICENSE for details.\n"


def read_texts(trees: Iterable[Path]) -> dict[str, str]:
    """Return the readable sources below the trees, each content once."""
    texts: dict[str, str] = {}
    for tree in trees:
        for path in sorted(tree.rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and 50 <= path.stat().st_size <= MAX_BYTES:
                try:
                    texts.setdefault(path.read_text(encoding="utf-8"), str(path))
                except UnicodeDecodeError:
                    continue
    return {path: text for text, path in texts.items()}


def hash_like_bigcode(text: str) -> list[bytes]:
    """Return the 25 bands of 10 rows that their parameters give for a threshold of 0.7."""
    words = [word for word in re.split(r"\W", text) if word]
    shingles = {" ".join(words[place : place + 5]).encode() for place in range(max(1, len(words) - 4))}
    values = np.array([int.from_bytes(hashlib.sha1(one).digest()[:4], "little") for one in shingles], dtype=np.uint64)
    hashes = ((values[:, None] * _FACTORS + _SUMMANDS) % _PRIME) & np.uint64((1 << 32) - 1)
    least = hashes.min(axis=0).astype(np.uint32)
    return [least[start : start + 10].tobytes() for start in range(0, 250, 10)]


def time_in_turn(texts: list[str]) -> dict[str, float]:
    """Return the documents per processor second of both, the best of alternating rounds."""
    best: dict[str, float] = {}
    contestants: dict[str, Callable[[str], Any]] = {"ours": make_bands, "bigcode": hash_like_bigcode}
    for _ in range(ROUNDS):
        for name, function in contestants.items():
            make_shingles.cache_clear()
            start = time.process_time()
            for text in texts:
                function(text)
            best[name] = min(best.get(name, np.inf), time.process_time() - start)
    return {name: len(texts) / seconds for name, seconds in best.items()}


def degrade(text: str, chance: random.Random) -> dict[str, str]:
    """Return copies of a text that somebody might have made, by what was done."""
    names = sorted(set(_WORD.findall(text)))
    renamed = {share: set(chance.sample(names, int(share * len(names)))) for share in (0.05, 0.2, 0.5)}
    copies = {
        "reformatted": re.sub(r"[ \t]+", " ", text.replace("(", "( ").replace(",", " ,").replace("\n", "\n\n")),
        "new header": _HEADER + text,
        "upper case": text.upper(),
    }
    for share, chosen in renamed.items():
        copies[f"{share:.0%} of names"] = _WORD.sub(lambda word: f"{word[0]}_x" if word[0] in chosen else word[0], text)  # noqa: B023
    lines = text.split("\n")
    for share in (0.05, 0.2, 0.5):
        changed = set(chance.sample(range(len(lines)), int(share * len(lines))))
        copies[f"{share:.0%} of lines"] = "\n".join(
            f"changed = line_{number}(anew)" if number in changed else line for number, line in enumerate(lines)
        )
    return copies


def measure_recall(texts: list[str]) -> dict[str, dict[str, list[int]]]:
    """Return [copies that share a band, copies] by what was done and by the bucket of true similarity."""
    chance = random.Random(1)
    found: dict[str, dict[str, list[int]]] = {"by kind": {}, "by similarity": {}}
    for text in texts:
        bands = make_bands(text)
        for kind, copy in degrade(text, chance).items() if bands else ():
            shares = any(a == b for a, b in zip(bands, make_bands(copy), strict=False))
            measured = similarity(text, copy)
            bucket = f"{max(edge for edge in BUCKETS if edge <= measured):.2f}"
            for group, key in (("by kind", kind), ("by similarity", bucket)):
                count = found[group].setdefault(key, [0, 0])
                count[0] += shares and (group == "by similarity" or measured >= THRESHOLD)
                count[1] += 1
    return found


def find_pairs(texts: dict[str, str]) -> tuple[list[tuple[float, str, str]], int]:
    """Return the near-duplicates among the files (similarity, path, path), and how many pairs share a band."""
    buckets: dict[tuple[int, int], list[str]] = defaultdict(list)
    for path, text in texts.items():
        for key in enumerate(make_bands(text)):
            buckets[key].append(path)
    pairs = {(one, other) for paths in buckets.values() for place, one in enumerate(paths) for other in paths[:place]}
    measured = [(similarity(texts[one], texts[other]), one, other) for one, other in sorted(pairs)]
    return sorted((pair for pair in measured if pair[0] >= THRESHOLD), reverse=True), len(pairs)


def main() -> None:
    """Measure, and print a report or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recall-files", type=int, default=400)
    options = parser.parse_args()
    texts = read_texts(options.trees)
    chosen = random.Random(1).sample(list(texts.values()), min(len(texts), options.recall_files))
    timed = chosen[:NUM_TIMED]
    docs_per_s = time_in_turn(timed)
    mean_bytes = sum(len(text.encode()) for text in timed) / len(timed)
    pairs, num_candidates = find_pairs(texts)
    report = {
        "files": len(texts),
        "bytes": sum(len(text.encode()) for text in texts.values()),
        "docs_per_s": docs_per_s,
        "mb_per_s": {name: rate * mean_bytes / 1e6 for name, rate in docs_per_s.items()},
        "ratio_to_bigcode": docs_per_s["ours"] / docs_per_s["bigcode"],
        "recall": measure_recall(chosen),
        "candidate_pairs": num_candidates,
        "near_pairs": len(pairs),
        "near_files": len({path for _, *paths in pairs for path in paths}),
    }
    if options.json:
        print(json.dumps(report))
        return
    print(json.dumps(report, indent=2))
    for measured, *paths in pairs[:40]:
        print(f"{measured:.2f}  {paths[0]}  {paths[1]}")


if __name__ == "__main__":
    main()
