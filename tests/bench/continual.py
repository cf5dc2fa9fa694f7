"""Measure what a line keeps of earlier code while it learns new code, round after round.

`python -m tests.bench.continual --base FOLDER… --rounds FOLDER… [--json] [--arms …] [--work FOLDER] [--quick]`

A small base is pre-trained on a part of the `--base` folders (`--base-epochs` passes; the figures of one with half as
many show how near to its plateau it is). Then each folder of `--rounds` is one round, in the order given: order them by
language, so that the rounds shift. Ingest, ledger, trainer, gate and consolidation are the service's own; every arm is
a line of its own on the same base and rows. Held-out code is that of all rounds so far, and an anchor: files of the
base's folders that the base has not seen.

Regression of a round: how many more bits the held-out code of what was learned before, and the anchor, needs after the
round than before it, as a share. Over all rounds: the same, since each repository was learned, that is since the first
version that was trained on it. `--quick` is a small version on files of the running Python.
"""

import argparse
import json
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.config import DaemonSettings
from tests.bench.continual_report import as_markdown, describe_round, summarise
from tests.bench.rounds import fetch_costs, ingest_tree, make_line, open_home, run_to_end
from tests.bench.small_base import SMALL, Picked, make_base, measure_base, pick

GATED = "gated"  # both replay and consolidation, and the gate decides; the other arms promote every round
ARMS: dict[str, dict[str, Any]] = {
    "neither": {"replay_share": 0.0, "consolidate_every": 0},
    "replay": {"consolidate_every": 0},
    "consolidation": {"replay_share": 0.0},
    "both": {},
    GATED: {},
    "more replay": {"replay_share": 0.5, "consolidate_every": 0},
    "lower rate": {"continued_rate_share": 0.25, "consolidate_every": 0},
}
SERVICE: dict[str, Any] = {
    "threshold_rows": 5,
    "min_quality": 0,
    "min_test_units": 4,
    "max_test_chars": 2_000_000,
    "eval_pieces": 4,
    "consolidate_every": 3,
    "line_lease_s": 36_000,
}
_TOLD = ("hidden_size", "num_layers", "lora_rank", "learning_rate", "consolidate_every")
_ANCHOR_SHARE = 0.08  # of what the base is given of a folder, beside that
_QUICK: dict[str, Any] = {
    "num_layers": 1,
    "sequence_tokens": 128,
    "max_chars": 400,
    "vocabulary": 512,
}
# Of a round's dozen files the folder's name may leave hardly any on one side of the split.
_QUICK_SERVICE: dict[str, Any] = {"consolidate_every": 2, "threshold_rows": 1, "min_test_units": 2}
_QUICK_CHARS, _QUICK_ROUNDS = 10_000, 3


def main(words: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--base", nargs="+", type=Path, metavar="FOLDER", default=[])
    parser.add_argument("--rounds", nargs="+", type=Path, metavar="FOLDER", default=[])
    parser.add_argument("--base-chars", type=int, default=130_000, help="of each folder, for the base")
    parser.add_argument("--base-epochs", type=int, default=8)
    parser.add_argument("--round-chars", type=int, default=200_000, help="of each folder, for a round")
    parser.add_argument("--train-share", type=float, default=0.7, help="of a round's files; the rest is held out")
    parser.add_argument("--learning-rate", type=float, default=SMALL["learning_rate"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS)[:5])
    parser.add_argument("--work", type=Path, help="keep bases and chosen files there, for runs with the same options")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    if not (arguments.quick or (arguments.base and arguments.rounds)):
        parser.error("give --base and --rounds folders of source code, or --quick")
    with tempfile.TemporaryDirectory(prefix="codelupe-continual-") as folder:
        arguments.work = (arguments.work or Path(folder)).resolve()
        if arguments.quick:
            _make_quick(arguments)
        report = measure(arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        print(as_markdown(report))


def _make_quick(arguments: argparse.Namespace) -> None:
    """Deal small files of the standard library out to a base and three rounds of one arm."""
    dealt: list[list[Picked]] = [[] for _ in range(_QUICK_ROUNDS + 1)]
    library = pick(Path(sysconfig.get_path("stdlib")), len(dealt) * _QUICK_CHARS, most_chars_of_one=1_500)
    for number, file in enumerate(library):
        dealt[number % len(dealt)].append(file)
    trees = [write_tree(arguments.work / "library" / f"{number}", files) for number, files in enumerate(dealt)]
    arguments.base, arguments.rounds = trees[:1], trees[1:]
    arguments.base_chars, arguments.base_epochs, arguments.round_chars = _QUICK_CHARS * 4 // 5, 2, 2 * _QUICK_CHARS
    arguments.arms, arguments.train_share, arguments.learning_rate = ["both"], 0.6, 2e-2


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the report: the base's figures, and each arm's by round."""
    small = SMALL | (_QUICK if arguments.quick else {})
    chosen, anchor = choose_base_files(arguments.base, arguments.base_chars)
    work, epochs = arguments.work, arguments.base_epochs
    bases = {
        num: make_base(work / f"base{num}", chosen, epochs=num, **small | {"micro_batch": 8})
        for num in sorted({epochs // 2, epochs})
    }
    trees = [write_tree(work / "anchor", anchor)]
    for number, folder in enumerate(arguments.rounds, start=1):
        picked = pick(folder, arguments.round_chars)
        trees.append(write_tree(work / f"{number:02d}-{folder.resolve().name}", picked))
    settings = (
        SERVICE | small | {"learning_rate": arguments.learning_rate} | (_QUICK_SERVICE if arguments.quick else {})
    )
    arms = run_arms({name: ARMS[name] for name in arguments.arms}, settings, bases[epochs], trees, arguments)
    return {
        "base": {f"epochs_{num}": measure_base(base, anchor, **small) for num, base in bases.items()},
        "settings": {name: settings[name] for name in _TOLD},
        "sources": [tree.name for tree in trees],
        "arms": arms,
    }


def choose_base_files(folders: Sequence[Path], max_chars: int) -> tuple[list[Picked], list[Picked]]:
    """Return files for the base, and further ones for the anchor, which the base does not see."""
    chosen: list[Picked] = []
    anchor: list[Picked] = []
    for folder in folders:
        left, spare = max_chars, round(_ANCHOR_SHARE * max_chars)
        for file in pick(folder, 2 * max_chars):
            if left > 0:
                chosen.append(file)
                left -= len(file.text)
            elif spare > 0:
                anchor.append(file)
                spare -= len(file.text)
    return chosen, anchor


def write_tree(folder: Path, files: Sequence[Picked] | Any) -> Path:
    """Write files below a folder, for ingest to read, unless it is there; return it. Its path decides the split."""
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        path = folder / f"{number:03d}" / file.path
        path.parent.mkdir(parents=True)
        path.write_text(file.text)
    return folder


def run_arms(
    arms: dict[str, dict[str, Any]], settings: dict[str, Any], base: Path, trees: Sequence[Path], arguments: Any
) -> dict[str, Any]:
    """Ingest a tree, let every arm's line train on it, and so on; return what each arm's rounds came to."""
    with open_home() as (engine, home):
        lines = {
            name: make_line(
                engine,
                home,
                DaemonSettings(**settings | {"base_model": str(base), "line": name.replace(" ", "-")} | changes),
            )
            for name, changes in arms.items()
        }
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in lines}
        for number, tree in enumerate(trees):
            split = (arguments.train_share, 0.05) if number else (1e-9, 0.0)  # the anchor is held out as a whole
            ingest_tree(engine, home, tree, min_units=20, train_share=split[0], validation_share=split[1])
            for name, ctx in lines.items() if number else ():
                told[name].append(describe_round(run_to_end(ctx, gated=name == GATED), fetch_costs(ctx)))
                sys.stderr.write(json.dumps({"arm": name, "round": number, **told[name][-1]}) + "\n")
    sources = [tree.name for tree in trees]
    return {name: {**summarise(rounds, sources), "rounds": rounds} for name, rounds in told.items()}


if __name__ == "__main__":
    main()
