"""Measure how full packed rows are, by corpus, tokenizer, sequence length and `max_chars`.

`python -m tests.bench.density [TREE...] [--ranks FILE] [--json]`: the standard library, each tree of sources, and all
of them together, 2 million characters of each. The tokenizer is trained on other files of the standard library (16,384
entries), or made of a file of ranks as tiktoken reads them. Qwen's is `dashscope/resources/qwen.tiktoken` in the wheel
of dashscope on PyPI: the 151,643 entries that Qwen2.5 has too, without its reserved tokens.
"""

import argparse
import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from daemon.config import SampleSettings
from daemon.job import Item
from daemon.samples import build_all, density, pack, train_tokenizer
from daemon.samples.tokens import SPECIAL_TOKENS, WORDS
from tests.bench.contest.stage import SEED, read_corpus, take
from tests.bench.small_base import pick

NUM_CHARS = 2_000_000
SHAPES = ((512, 2000), (2048, 8000), (2048, 12_000), (4096, 8000), (4096, 24_000))
_BATCH = 4  # sequences that a padded batch has


def read_ranks(file: Path) -> Tokenizer:
    """Return the tokenizer of a file of ranks: a line for each entry, in base64, and its number."""
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(entry): int(rank) for entry, rank in lines}
    names = bytes_to_unicode()

    def name(entry: bytes) -> str:
        return "".join(names[byte] for byte in entry)

    merges = [tuple(map(name, _halves(entry, ranks))) for entry in sorted(ranks, key=ranks.__getitem__) if entry[1:]]
    tokenizer = Tokenizer(models.BPE({name(entry): rank for entry, rank in ranks.items()}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.encode_special_tokens = True
    return tokenizer


def _halves(entry: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the two entries that an entry was merged from: what the merges before it make of its bytes."""
    parts = [entry[place : place + 1] for place in range(len(entry))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def read_tree(tree: Path) -> list[Item]:
    """Return what the ingest accepts of a tree, in the order of the paths' hashes."""
    return [
        Item(
            ordinal=number,
            item_id=number,
            role="train",
            content=file.text,
            sha256=sha256(file.text.encode()).hexdigest(),
            language=file.language,
            path=file.path,
            repository=tree.name,
            unit=file.path,
        )
        for number, file in enumerate(pick(tree, NUM_CHARS, most_chars_of_one=262_144))
    ]


def measure(items: Sequence[Item], tokenizer: Tokenizer, sequence_tokens: int, max_chars: int) -> dict[str, Any]:
    """Return the samples of some files, and the share of tokens in their rows, packed and padded."""
    settings = SampleSettings(sequence_tokens=sequence_tokens, max_chars=max_chars)
    lengths = [len(sample.input_ids) for sample in build_all(items, tokenizer, settings, seed=SEED)]
    batches = [lengths[first : first + _BATCH] for first in range(0, len(lengths), _BATCH)]
    return {
        "sequence_tokens": sequence_tokens,
        "max_chars": max_chars,
        "samples": len(lengths),
        "mean_tokens": round(mean(lengths)),
        "density": round(density(lengths, len(pack(lengths, sequence_tokens)), sequence_tokens), 4),
        "padded": round(sum(lengths) / sum(max(batch) * len(batch) for batch in batches), 4),
    }


def main() -> None:
    """Print a table for each corpus, or one document."""
    parser = argparse.ArgumentParser(description="Measure how full packed rows are.")
    parser.add_argument("trees", nargs="*", type=Path, metavar="TREE")
    parser.add_argument("--ranks", type=Path, help="a tokenizer as tiktoken reads it, in place of one that is trained")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    asked = parser.parse_args()
    library = read_corpus()
    corpora = {"stdlib": take(library, NUM_CHARS)} | {tree.name: read_tree(tree) for tree in asked.trees}
    if len(corpora) > 1:
        corpora["all"] = [item for items in corpora.values() for item in items]
    if asked.ranks:
        tokenizer = read_ranks(asked.ranks)
    else:
        tokenizer = train_tokenizer([item.content for item in take(library, NUM_CHARS)], 16_384)
    report = {}
    for name, items in corpora.items():
        texts = [item.content for item in items]
        num_tokens = sum(len(found.ids) for found in tokenizer.encode_batch(texts, add_special_tokens=False))
        rows = [measure(items, tokenizer, *shape) for shape in SHAPES]
        report[name] = {"chars_per_token": round(sum(map(len, texts)) / num_tokens, 3), "rows": rows}
        if not asked.json:
            print(name, len(items), "files,", report[name]["chars_per_token"], "characters per token")
            for row in rows:
                print("  ", *(f"{key} {value}" for key, value in row.items()))
    if asked.json:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
